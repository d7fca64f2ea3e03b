"""Attacks on a release and on its mechanism, for an auditor who has the private data.

An audit can refute a guarantee, never prove it: that one found nothing says only that this attack, with so many texts
or runs, found nothing. What each can show, and what it cannot:

* **Copied text** (`copied`): runs of words that synthetic and private text share, beside those shared with real text
  that was not in the data. Shows copying word for word; sees no paraphrase. In scripts without
  spaces, words are counted by clusters of characters (`data.segmentation`).
* **Canaries** (`plant`, `exposure`): made-up secrets among the records. Show whether what occurs once, or a few times,
  comes out again; they speak for records like them, and the run that they are in is for auditing only.
* **Membership** (`attacks`): whether private records can be told from like ones that were not in the data. An average:
  a few records may be far worse off. Where the two sets differ in any other way, it finds that instead.
* **Replay** (`replay`): a lower bound on the ε of decoding one batch, from sequences drawn with and without one context
  on logits kept from a model. The only one that contradicts a claim of (ε, δ) at a known error rate. Far below the
  claim is what to expect: the claim is for the worst logits, and R runs cannot show more than about log R.

All figures depend on private data and are outside the guarantee: they belong into private/. Intervals are at 95 %:
exact binomial for shares, percentile bootstrap otherwise, none for a maximum. Seeds make audits repeatable; nothing
that is drawn with them is released.
"""
