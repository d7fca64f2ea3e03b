"""Words of any script: as before for Latin letters, and as for English in others."""

import random
import re
import sys
import time

import numpy as np
import pytest
import regex

from plainchant.auditing.attacks import copied
from plainchant.data import segmentation
from plainchant.data.segmentation import QUARTERS, chunks, share_of_signs, units, word_count, words
from plainchant.evaluation.measures import Sample, predicted
from plainchant.generation.prompting import choose_examples

# three sentences on a harbour, a garden and a school, hand-made
SENTENCES = {
    "English": [
        "The fishing boats left the harbour early this morning because the wind was still weak.",
        "My grandmother plants tomatoes and beans in her garden behind the old house every spring.",
        "The children go to school by bus and come home tired in the late afternoon.",
    ],
    "Chinese": [
        "因为今天早上的风还很小,渔船很早就离开了港口,渔民们希望能捕到很多鱼。",
        "每年春天,我的祖母都会在老房子后面的花园里种西红柿和豆子,邻居也来帮忙。",
        "孩子们坐公共汽车去上学,傍晚回到家的时候已经很累了,吃完饭就睡觉。",
    ],
    "Japanese": [
        "今朝は風がまだ弱かったので、漁船は朝早く港を出て、沖で魚をとっていました。",
        "祖母は毎年春になると、古い家の裏の庭にトマトと豆を植えて、近所の人に配ります。",
        "子どもたちはバスで学校に通い、夕方には疲れて家に帰って、すぐに眠ってしまいます。",
    ],
    "Thai": [
        "เช้าวันนี้เรือประมงออกจากท่าเรือแต่เช้าเพราะลมยังไม่แรงมาก",
        "คุณยายของฉันปลูกมะเขือเทศและถั่วในสวนหลังบ้านทุกฤดูใบไม้ผลิ",
        "เด็กๆนั่งรถเมล์ไปโรงเรียนและกลับบ้านด้วยความเหนื่อยในตอนเย็น",
    ],
    "Hindi": [
        "आज सुबह हवा धीमी थी इसलिए मछली पकड़ने वाली नावें जल्दी बंदरगाह से निकल गईं।",
        "मेरी दादी हर वसंत में पुराने घर के पीछे बगीचे में टमाटर और सेम लगाती हैं।",
        "बच्चे बस से स्कूल जाते हैं और शाम को थककर घर लौट आते हैं।",
    ],
    "Tamil": [
        "இன்று காலை காற்று மெதுவாக இருந்ததால் மீன்பிடி படகுகள் துறைமுகத்தை விட்டு சீக்கிரம் கிளம்பின.",
        "என் பாட்டி ஒவ்வொரு வசந்த காலத்திலும் பழைய வீட்டின் பின்னால் தக்காளி செடிகளை நடுகிறார்.",
        "குழந்தைகள் பேருந்தில் பள்ளிக்குச் சென்று மாலையில் களைப்புடன் தங்கள் வீடு திரும்புகிறார்கள்.",
    ],
    "Arabic": [
        "غادرت قوارب الصيد الميناء في وقت مبكر من صباح اليوم لأن الريح كانت ضعيفة.",
        "تزرع جدتي الطماطم والفاصوليا في حديقتها خلف البيت القديم في كل ربيع.",
        "يذهب الأطفال إلى المدرسة بالحافلة ويعودون إلى البيت متعبين في آخر النهار.",
    ],
    "Hebrew": [
        "סירות הדיג יצאו מהנמל מוקדם הבוקר כי הרוח הייתה עדיין חלשה מאוד.",
        "סבתא שלי שותלת עגבניות ושעועית בגינה מאחורי הבית הישן בכל אביב מחדש.",
        "הילדים נוסעים לבית הספר באוטובוס וחוזרים הביתה עייפים בשעות אחר הצהריים.",
    ],
    "Korean": [
        "오늘 아침에는 바람이 아직 약해서 어선들이 일찍 항구를 떠나 바다로 나갔다.",
        "할머니는 매년 봄마다 오래된 집 뒤에 있는 정원에 토마토와 콩을 심는다.",
        "아이들은 버스를 타고 학교에 가고 늦은 오후에 지쳐서 집으로 돌아온다.",
    ],
    "Burmese": [
        "ဒီမနက်လေမပြင်းသေးလို့ငါးဖမ်းလှေတွေဆိပ်ကမ်းကနေစောစောထွက်သွားကြတယ်",
        "အဖွားကနွေဦးတိုင်းအိမ်ဟောင်းနောက်ကဥယျာဉ်မှာခရမ်းချဉ်သီးတွေစိုက်တယ်",
        "ကလေးတွေကဘတ်စ်ကားနဲ့ကျောင်းသွားပြီးညနေမှာပင်ပန်းစွာအိမ်ပြန်လာကြတယ်",
    ],
}


def latin(seed, length):
    alphabet = "abcXYZéßøſİıñŁ0123½²_ \n\t\u00a0\u2009.,'’-–—!?%€$()[]{}«»“”…@#&/\\\x1c\x85"
    return "".join(random.Random(seed).choices(alphabet + "aeiou  " * 4, k=length))


@pytest.mark.parametrize("seed", range(200))
def test_latin_script_is_counted_as_before(seed):
    text = latin(seed, 120)
    assert words(text) == re.findall(r"\w+", text)
    assert chunks(text) == text.split()
    assert word_count(text) == len(text.split())
    assert units(text) == [(word, QUARTERS) for word in re.findall(r"\w+(?:[^\w\s]+\w+)*", text)]
    signs = sum(not (character.isalnum() or character.isspace()) for character in text)
    assert share_of_signs(text) == signs / len(text)
    assert words("") == []
    assert chunks("") == []
    assert units("") == []
    assert word_count("") == share_of_signs("") == 0


def test_a_letter_is_what_it_was_for_every_character_that_both_libraries_know():
    letter = regex.compile(f"(?V1){segmentation._LETTER}|{segmentation._UNSPACED}")
    known = regex.compile(r"(?V1)[\p{Assigned}--\p{M}]")
    differ = [
        chr(code)
        for code in range(sys.maxunicode + 1)
        if not 0xD800 <= code < 0xE000
        and re.match(r"\w", chr(code))
        and known.match(chr(code))
        and not letter.match(chr(code))
    ]
    assert differ == []


@pytest.mark.parametrize("script", SENTENCES)
def test_sentences_are_examples_and_loops_and_rubbish_are_not(script):
    one, two, three = SENTENCES[script]
    piece = one[: len(one) // 4]
    loop = piece * 12 if word_count(piece) == word_count(piece + piece) / 2 else " ".join([piece] * 12)
    rubbish = "!?%" * len(one) + one
    short = units(one)[0][0]
    assert 6 <= word_count(one) <= 25
    assert choose_examples([loop, short, rubbish, one], 4) == [one]
    # a likeness of the first comes last
    again = one[: 3 * len(one) // 4] + two[-len(two) // 6 :]
    assert choose_examples([one, again, two, three], 3) == [one, *sorted([two, three], key=[two, three].index)]


@pytest.mark.parametrize("script", SENTENCES)
def test_copies_are_found_and_others_are_none(script):
    one, two, three = SENTENCES[script]
    found = copied([one, two], [one, three])
    assert found["copied"].value == 0.5
    assert found["private_longest_run"].value >= 8
    assert found["private_five_grams"].value > 0.3
    # within another text, at another place, with other words around
    assert copied([f"{three} {one}"], [f"{two} {one} {two}"])["copied"].value == 1
    assert copied([one], [two, three])["private_longest_run"].value < 4
    # by chance, as held-out text shows it
    assert copied([one], [two, one], [three, one])["copied"].value == 0


@pytest.mark.parametrize("script", SENTENCES)
def test_words_tell_labels_apart(script):
    one, two, three = SENTENCES[script]
    parts = [[text[: len(text) // 2], text[len(text) // 4 :]] for text in (one, two)]
    train = Sample([part for own in parts for part in own], ["a", "a", "b", "b"], np.zeros((4, 1)))
    test = Sample([f"{one} {three}", f"{two} {three}"], ["a", "b"], np.zeros((2, 1)))
    assert predicted(train, test, by_words=True).tolist() == ["a", "b"]


def test_marks_stay_with_their_letters_and_scripts_without_spaces_are_shingled():
    assert words("बंदरगाह की नावें") == ["बंदरगाह", "की", "नावें"]
    assert words("port 港口的 x") == ["port", "港口", "口的", "x"]
    assert words("港") == ["港"]
    assert word_count("港口 port") == 2
    assert units("ท่าเรือ")[0] == ("ท่", 1)
    assert word_count("ท่าเรือ") == 5 / 4
    assert words("e\u0301te\u0301") == ["e\u0301te\u0301"]


@pytest.mark.parametrize(
    "piece", ["a", "!", " ", "a!", "港", "港!", "ก\u0e31", "\u0e31", "a\u0301", "\u200d", "_", "港a"]
)
def test_time_is_linear(piece):
    def taken(count):
        text, best = piece * count, float("inf")
        for _ in range(3):
            began = time.process_time()
            words(text), chunks(text), units(text), share_of_signs(text), word_count(text)
            best = min(best, time.process_time() - began)
        return best

    # eight times the text; a quadratic one takes sixty-four times as long
    assert taken(32_000) < 24 * taken(4_000) + 0.2
