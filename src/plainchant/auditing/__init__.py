"""Attacks on a release and on its mechanism, for an auditor who has the private data.

An audit can refute a guarantee, never prove it. An audit that finds nothing shows only that this attack, with this many
texts or runs, found nothing. What each attack can and cannot show:

* **Copied text** (`copied`): runs of words that synthetic and private text share, compared with those shared with real
  text that was not in the data. Finds word-for-word copies, but no paraphrases. In scripts without spaces, words are
  counted by clusters of characters (`data.segmentation`).
* **Canaries** (`plant`, `exposure`): made-up secrets among the records. They show whether text that occurs once, or a
  few times, leaks. The result holds for records like the canaries, and a run that contains them is for auditing only.
* **Membership** (`attacks`): whether private records can be distinguished from similar ones that were not in the data.
  An average: for a few records it may be much easier. If the two sets also differ in some other way, the attack finds
  that difference instead.
* **Replay** (`replay`): a lower bound on the ε of decoding one batch, from sequences drawn with and without one context
  on logits kept from a model. The only attack that can contradict a claim of (ε, δ) at a known error rate. Expect a
  bound far below the claim: the claim is for the worst logits, and R runs cannot show more than about log R.

All figures depend on private data and are outside the guarantee: they belong in private/. Intervals are at 95 %: exact
binomial for shares, percentile bootstrap otherwise, none for a maximum. Seeds make audits repeatable; nothing that is
drawn with them is released.
"""
