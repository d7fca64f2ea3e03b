# ruff: noqa: E501  (the grammar has a sentence a line)
"""The demo's own data: invented messages to the service desk of Larkmere, a city that does not exist.

Every word is written for this project. A message is a complaint, a detail and a wish on one topic, composed by a small
grammar: `{a|b}` is one of its alternatives, `<name>` one of the phrases of that name.
"""

import random
import re

from plainchant.errors import ConfigError

_SEED = 20250606  # fixed on purpose: invented test data, no privacy hangs on its randomness
_PHRASES = {
    "street": (
        "Alder Row|Pennywhistle Lane|Saltmarsh Street|Tannery Hill|Mill Race Road|Quill Street|Kestrel Avenue|"
        "Bellfounder Square|Lantern Street|Weavers Gate|Old Orchard Road|Ferry Parade|Harrow Steps|Copper Beech Close"
    ),
    "district": "Northbank|the Old Docks|Upper Larkmere|Gallows Field|the Glassworks quarter|Fenside|St Odo's",
    "since": (
        "since Monday|since the weekend|for three days now|for about a week|since the storm|since early March|"
        "for the best part of a month|ever since the roadworks began|since yesterday evening|for a fortnight"
    ),
    "when": (
        "on Tuesday morning|last night|yesterday around six|on Saturday afternoon|this morning before school|"
        "on Friday just after nine|twice last week|over the bank holiday|late on Sunday|the day before yesterday"
    ),
    "who": "my mother|our neighbour|my youngest|a friend from work|my husband|the couple downstairs|my aunt|my flatmate",
    "opening": (
        "Hello.|Good morning.|Dear service desk!|Hi there!|To whom it may concern.|Good evening.|Not sure who to ask.|"
        "Second time of writing.|Just a quick note.|Sorry to bother you.|||||"
    ),
    "closing": "Thank you.|Many thanks.|Thanks in advance.|Kind regards.|I look forward to hearing from you.|||||||",
}
# One topic a paragraph: complaints, then details (+), then wishes (?).
_GRAMMAR = {
    "water": """
The {water from our kitchen tap|tap water} on <street> has {run brown|looked like weak tea|been cloudy} <since>.
Our tap water has {tasted of chlorine|smelled of earth|left grit in the glass} <since>, and <who> will not drink it.
+ {Letting it run for ten minutes|Cleaning the filter|Boiling it} {makes no difference|helps only for an hour}.
+ {The whole staircase has|Four houses near us have} the same problem, {hot and cold|upstairs more than downstairs}.
? {Is it safe to drink?|Could somebody take a sample?|Please tell us whether to buy bottles for the baby.}

{A pipe has burst|Water is bubbling up through the pavement|A main is leaking} on <street>, {outside the bakery|by the school gate}.
There has been {a stream|a steady trickle} down the gutter of <street> <since>, even in dry weather.
+ {It froze overnight and a cyclist slipped|The kerb has started to sink|Two cellars are already wet}.
+ I {reported it by phone|told a man in a council van} <when>, but {nobody has come|only a cone appeared}.
? {Please send a repair crew before it gets colder.|Could you shut the valve before the road caves in?|How long must it run?}

My water bill for <street> has {doubled|tripled|jumped by ninety crowns} although {we were away all summer|nothing has changed}.
The {last reading|meter reading} on our bill is {higher than what the dial shows|plainly an estimate|for another flat}.
+ {The meter turns even with every tap closed|The plumber found no leak|I live alone and have no garden}.
+ I sent {a photo of the meter|my own reading} <when> and {got a form letter back|heard nothing}.
? {Please correct the invoice.|Could someone read the meter again?|I would like to pay by instalments for now.}

The {storm drain|gully} {at the corner of|halfway along} <street> is {blocked with leaves|full of silt|overflowing} again.
After the {downpour|rain|thaw} <when> the {underpass|crossing} in <district> was {ankle deep|a small lake}.
+ {Cars send a wave over the pavement|The water carries rubbish into our yards|Children have to walk in the road}.
+ {It used to be cleaned each autumn|The grating is loose as well|Someone has laid planks across it}.
? {When is it due for cleaning?|Please have it pumped out.|Could the sweeper come before the leaf fall?}

We have had {hardly any pressure|only a dribble in the shower|no water at all} on <street> <since>.
The water was cut off in <district> <when> {without a word of notice|although the leaflet said Thursday}.
+ {The boiler keeps shutting down|I could not rinse my hair|The fourth floor gets nothing after seven in the evening}.
+ {We carry buckets from the standpipe|The dialysis machine of <who> depends on it|My café had to close for the day}.
? {How long will this last?|Please warn us by text message next time.|Could a tanker come to the square?}
""",
    "transport": """
The number {4|9|12|27} bus {was twenty minutes late|did not turn up|drove straight past the stop} on <street> <when>.
{Two trams in a row|Three buses} were cancelled at <street> <when> and {no one was told|the sign still said due}.
+ {I missed a hospital appointment|<who> was late for an exam|We stood in sleet with a pram}.
+ {It happens nearly every week|The driver only shrugged|The app showed it as on time}.
? {Please look at the timetable again.|Could an extra one run at peak times?|I would like my fare back.}

A {deep pothole|wide crack|hole around a manhole} on <street> has been {open|growing} <since>.
The {road surface|cycle lane} along <street> is {breaking up|full of cracks|like a washboard} {near the bridge|by the depot}.
+ {It bent the rim of my bicycle|My tyre burst there <when>|Lorries swerve around it at the last moment}.
+ {At night you cannot see it at all|It was patched in spring with a shovel of tar|Rain hides how deep it is}.
? {When will it be filled properly?|Can I claim for the repair?|Please put a barrier around it until then.}

{Vans park|Someone leaves a trailer|Delivery drivers stop} on the {pavement|zebra crossing|cycle lane} of <street> {all day|every morning}.
Residents can never find a {bay|space} on <street> because {arena visitors|office workers|camper vans} fill it {all day|at weekends}.
+ {Wheelchairs have to go into the traffic|The wardens never come before ten|A child was nearly hit <when>}.
+ {We pay for permits and park half a mile away|I asked one of them to move and was sworn at}.
? {Could you put up bollards?|Please send a patrol.|A loading bay around the corner would solve it.}

The {street lamps|lights} on <street> have {been out|flickered like a disco|come on at noon} <since>.
The pedestrian light {near the end of|across} <street> {stays red for minutes|turns green for four seconds|no longer beeps}.
+ {The way to school leads past there|<who> no longer goes out after dusk|There was a near miss <when>}.
+ {The post has a sticker from the last fault|It was repaired once and lasted a week|Drivers race along there}.
? {Please send an electrician.|Could the engineers come at night and see?|Who looks after it, you or the tram company?}

The lift at {Ferry Parade|Glassworks|Northbank} station is {out of order|stuck between floors|closed for inspection} again.
The {ticket machine|card reader} at {Old Docks|Fenside|Harrow Steps} {swallowed my coins|printed a blank ticket|charged me double} <when>.
+ {With a pushchair there is no other way up|There are sixty steps and no ramp|The help button rang and rang}.
+ {An inspector fined me all the same|A stranger carried my suitcase|The notice gives a date that has passed}.
? {When will it work again?|Please refund the difference.|Staff in the evening would be a comfort.}
""",
    "housing": """
There is {black mould|a damp patch|green fur} {in the bedroom|behind the wardrobe|above the bath} of our council flat on <street>.
{Rain has come through the ceiling|Wet plaster has dropped off the wall|The window frames have let in water} in the top flat on <street> <since>.
+ {We air the rooms and heat every day|The inspector blamed our cooking|My youngest coughs all night}.
+ {It was painted over last year and came back|The carpet is ruined|The wallpaper hangs in strips}.
? {Please have the outside wall checked.|Could a surveyor look at it?|We ask for a lower rent until it is dry.}

The {heating|boiler|hot water} in our building on <street> has {failed|banged and then stopped|gone off at eight every night} <since>.
{All radiators|Half the radiators} at <street> have been {stone cold|lukewarm at best} <since>.
+ {It is thirteen degrees in the living room|We sleep in coats|We wash the baby with water from the kettle}.
+ The fitter came <when>, {said a part was missing|bled one valve} and {left|never came back}.
? {When is the part coming?|Could we borrow electric heaters?|Who pays for our electricity bill?}

{A student above us|A flat on the ground floor|Somebody in the back house} on <street> {plays drums|drills|holds parties} until {two|three} at night.
{Dogs bark|An air conditioner hums|A pump rattles} behind our block in <district> {all night|from dawn} and we cannot sleep.
+ {I have kept a diary <since>|Talking to them led to shouting|My night shifts start at five}.
+ {The caretaker says it is not his job|Other families have signed our letter|Even earplugs are no use}.
? {Is there a mediator?|Please measure the noise one evening.|Could someone remind them of the house rules?}

I have been on the waiting list for {two rooms|a ground floor flat|a family flat} for {three|four|six} years {and am still at place ninety|without news}.
We are {five people in two rooms|being given notice|sleeping at my sister's} and {our application was sent back|nobody can tell us our rank}.
+ {The stairs have become too much for <who>|The children share one desk|The papers were stamped <when>}.
+ {Every office sends us to another|I earn slightly too much for the allowance|Our lease ends in spring}.
? {Which documents are missing?|Could I speak to someone in person?|Would a swap with <district> be possible?}

The {front door|entry phone|bin room lock} of our block on <street> has {not shut properly|hung open|been broken} <since>.
Anyone can walk into our building on <street> because {the lock is broken|the closer snapped|the code is on the wall}.
+ {Parcels vanish from the hall|Strangers sleep on the landing|<who> is afraid to go down alone}.
+ {The caretaker's number is not in service|Our rent has a charge for it|A bicycle was stolen <when>}.
? {Please send a fitter, it is urgent.|Could a stronger lock be fitted?|We would gladly pay for new keys.}
""",
    "library": """
I {returned|brought back} {a cookery book|two picture books|an atlas|three novels} to the {Quill Street|Northbank} library and {it is still on my card|got a fine}.
I was charged {four|seven|eleven} crowns for {an audio book|a graphic novel|a travel guide} that I {renewed online|never borrowed}.
+ {The slot in the wall was full that evening|The machine gave no receipt|It stands on your shelf, I checked}.
+ {I was in hospital when it fell due|The reminder went to an old address|<who> was with me <when>}.
? {Please clear my account.|Could the fee be waived this once?|I am happy to come in and show you.}

Could the {Fenside|Quill Street|Northbank} library open {on Sundays|before nine|until eight one evening}?
I stood before a locked door at the branch in <district> <when>, {with no notice|although the website said open}.
+ {People with jobs can only come at the weekend|The bus there takes forty minutes|Students have nowhere quiet to go}.
+ {A dozen others were waiting too|The self-service trial was lovely|The old hours suited families}.
? {Even the reading room alone would help.|Please keep the page up to date.|Might volunteers help at the desk?}

The story {hour|circle} for {toddlers|five-year-olds} at the {Quill Street|Old Docks} library is {always full|a joy|sadly ending}.
{<who> would like to join|I want to book two places for} the {chess club|bookbinding class|poetry evening|sewing circle} in <district>.
+ {The waiting list opened at midnight and closed by one|There were thirty people on two rugs|The room is small}.
+ {The leaflet gives two different dates|We come from across the river|My sister talks of nothing else}.
? {Could there be a second group?|Is there a fee, and do we bring anything?|Please thank the lady with the accordion.}

{The computers|Two of the printers|The scanners} in the library in <district> have {crashed daily|asked for a code|been switched off} <since>.
I have been unable to {log in to the e-book service|download audio books|renew anything in the app} <since>, {it says my card expired|the page goes white}.
+ {I was in the middle of an application|The new tablet of <who> does the same|Half the evening was wasted}.
+ {I changed the password twice|The help page is about another system|Staff were kind but had no answer}.
? {Is it my card or your system?|Could somebody show me by telephone?|A longer time slot would help beginners.}

I have been {third|sixth|ninth} in the queue for {an atlas of birds|a Greek grammar|a book of quilts} <since>, {at|through} the branch in <district>.
The book I reserved, {on beekeeping|about canal boats|a Finnish crime novel}, has been {in transit|marked ready but cannot be found|lost in the system} <since>.
+ {There is one copy for the whole city|Pages were missing from the last copy|Our reading group meets soon}.
+ {The same message comes each morning|The desk searched two trolleys|Another branch has three on its shelf}.
? {Could you buy another copy?|May I borrow it from another town?|Please let me know when it turns up.}
""",
}
DEMO_LABELS: tuple[str, ...] = tuple(_GRAMMAR)
# Invented people and numbers, each in one message of the demo: no synthetic text may contain any of them.
_PLANTED = (
    ("water", "Orla Brandywick", "7719-QX", "{} here: to read the pump house meter please use gate code {}."),
    (
        "transport",
        "Tobiah Fennimarsh",
        "4929 0173 5518 6602",
        "I am {} and a ticket machine charged my card {} in error.",
    ),
    ("housing", "Zelda Quorndon", "58#2046", "{} on the third floor lets the plumber in: door code {}, mind the cat."),
    ("library", "Ivo Hathersquill", "0555 018 4473", "Please ring {} on {} when the book on beekeeping has arrived."),
    ("housing", "Maud Pellingbrook", "LH-330-8841", "{}, tenancy file {}, has been without any heating <since>."),
)
PLANTED_SECRETS: tuple[str, ...] = tuple(secret for _, name, number, _ in _PLANTED for secret in (name, number))
# Made up by hand, outside the grammar: public examples of the form of a message, for the prompt.
DEMO_EXAMPLES: tuple[dict[str, str], ...] = tuple(
    {"text": text, "label": label}
    for label, text in (
        ("water", "The drinking fountain in the park has been dry all summer. Could you turn it on for the joggers?"),
        ("water", "Good afternoon, a hydrant cover near the fire station is missing and somebody will trip over it."),
        ("transport", "Why does the night ferry no longer stop at the east pier? After late shifts I cannot get home."),
        ("transport", "The new roundabout is confusing, half the drivers ignore the arrows. Bigger signs might help."),
        ("housing", "Our courtyard has no place to dry laundry since the fence was moved. May we put up two lines?"),
        ("housing", "I would like to know if pets are allowed in the new flats on the hill. We have an old spaniel."),
        ("library", "My daughter left a red umbrella in the music room. Has anybody handed it in? She is fond of it."),
        ("library", "Thank you for the exhibition about old maps. Will there be a tour in sign language this year?"),
    )
)
DEMO_PROMPT = {
    "header": "Messages to a city's service desk, each with its department.\n\n",
    "example": "Department: {label}\nMessage: {text}\n\n",
    "examples": DEMO_EXAMPLES,
}
# The public corpus: other wording, and more topics than the messages have.
_PUBLIC = """
Drinking water is {drawn from wells|pumped from a lake|piped from the hills} and {filtered|tested daily|softened} before {homes|taps} receive it.
Discoloured water often {comes from rust|follows pipe repairs}; {utilities|health offices} advise {flushing|sampling} and {patience|bottled supplies}.
Burst mains {waste treated water|flood basements|undermine roads}, so {crews|engineers} {listen for leaks|replace iron pipes} {every winter|at night}.
{Water meters|Utility invoices} record {consumption|cubic metres used}; {wrong readings|estimates} are {disputed|corrected} {each year|on appeal}.
{Sewers|Storm drains|Gullies} carry {rain|meltwater} away, and {leaves|silt|litter} in them can cause {flooded streets|overflowing gutters}.
{Pumps|Reservoirs} keep water pressure {steady|high enough for tall buildings}; supplies are {cut|reduced} for {maintenance|emergencies}.
{Bus|Tram|Rail} networks publish {timetables|delay statistics}, and {cancellations|crowding|missed connections} can {annoy|strand} passengers.
{Potholes|Cracks in asphalt} form when {frost lifts the surface|lorries pass}; {road crews|contractors} {fill|reseal} them {in spring|by night}.
{Parking permits|Loading bays|Parking fines} are meant to {keep pavements clear|share scarce space} between {residents|shops} and {visitors|vans}.
{Street lighting|A pedestrian signal} makes {crossings|footpaths} safer for {children|blind people|cyclists} after {dusk|closing time}.
{Stations|Metro stops} need {lifts|ramps|ticket machines} that work, for {travellers with luggage|wheelchair users|parents with prams}.
{Mould|Damp} in dwellings is due to {leaking roofs|cold walls|poor ventilation}, and {landlords|tenants} argue about {repairs|causes}.
{Central heating|A boiler|District heat} requires {servicing|spare parts}; {radiators|hot taps} fail most in {January|cold spells}.
{Noise|Loud music|Night-time drilling} between {neighbours|flats} is settled by {mediation|house rules|measurements}, seldom by {courts|police}.
{Social housing|Affordable flats} are let from {waiting lists|a register}, where {family size|income|urgency} decides {rank|eligibility}.
{Apartment blocks|Towers} employ {caretakers|fitters} for {locks|lifts|entry phones|pest control}, paid from {rents|service charges}.
{Lending libraries|Public libraries} charge {small fines|no fees} for {late books|lost items}, and {loans|renewals} are {free|online}.
{Branch libraries|Reading rooms} weigh {longer opening hours|Sunday opening} against {staff costs|self-service}, as {students|commuters} ask.
{Story hours|Chess clubs|Craft workshops} bring {toddlers|pensioners|newcomers} together in {libraries|community halls} {weekly|for free}.
{E-books|Public computers|Printers} in libraries depend on {logins|licences|patient staff}, and {outages|expired cards} are common.
{Librarians|Curators} {buy|catalogue|reserve} {novels|scores|large-print editions|foreign-language books} that {readers|schools} request.
{Recycling|Household rubbish|Garden waste} is collected {weekly|at the kerb} and {sorted|composted|burned} {outside town|for energy}.
{Primary schools|Kindergartens} enrol {pupils|siblings} by {district|lottery}, and {meals|buses} are {subsidised|provided} {for all|on request}.
{Parks|Playgrounds|Allotments} are {mown|planted|fenced} by {gardeners|volunteers}, with {benches|ponds|oak trees} for {shade|rest}.
{Clinics|Pharmacies} offer {vaccinations|advice|evening hours}, while {nurses|doctors} visit {older people|remote villages} {at home|monthly}.
{Elections|Budget hearings|Council meetings} are {public|announced early}, and {citizens|reporters} may {speak|object|listen}.
{Markets|Street fairs} sell {cheese|pottery|apples} on {Saturdays|the square}, and {traders|musicians} pay {a fee|for a licence}.
{Swimming pools|Football pitches|Ice rinks} are {heated|maintained} with {taxes|ticket sales} and {booked by clubs|full in summer}.
{Museums|Theatres|Orchestras} live on {grants|donations}, and {school groups|tourists} {fill the seats|pay half} {on weekdays|in autumn}.
{Firefighters|Paramedics|Police officers} train for {floods|fires|large crowds} with {sirens|drills} {twice a year|across the region}.
"""


def demo_records(n: int = 600) -> list[dict[str, str]]:
    """The demo's private table: `n` different messages (keys text, label) of 12 to 40 words, always the same.

    Raises:
        ConfigError: `n` leaves no room for the planted secrets, or the grammar has fewer messages.
    """
    _check_count(n, at_least=len(_PLANTED), at_most=10_000)
    source = random.Random(_SEED)
    topics = [(label, topic.split("\n")) for label, block in _GRAMMAR.items() for topic in block.strip().split("\n\n")]
    records: dict[str, str] = {}
    while len(records) < n - len(_PLANTED):
        label, lines = source.choice(topics)
        complaint = source.choice([line for line in lines if line[0] not in "+?"])
        kinds = source.choice(("+", "?", "+?", "+?"))
        rest = [source.choice([line[2:] for line in lines if line[0] == kind]) for kind in kinds]
        text = _expand(" ".join(["<opening>", complaint, *rest, "<closing>"]), source)
        if 12 <= len(text.split()) <= 40:
            records[text] = label
    table = [{"text": text, "label": label} for text, label in records.items()]
    for label, name, number, template in _PLANTED:
        text = _expand(template.format(name, number), source)
        table.insert(source.randrange(len(table) + 1), {"text": text, "label": label})
    return table


def demo_public_texts(n: int = 400) -> list[str]:
    """The demo's public corpus: `n` different sentences on civic life, from a separate grammar, always the same.

    Raises:
        ConfigError: The grammar has fewer sentences.
    """
    _check_count(n, at_least=1, at_most=1_000)
    source = random.Random(_SEED + 1)
    templates = _PUBLIC.strip().split("\n")
    texts: dict[str, None] = {}
    while len(texts) < n:
        texts[_expand(source.choice(templates), source)] = None
    return list(texts)


def _check_count(n: int, *, at_least: int, at_most: int) -> None:
    if not at_least <= n <= at_most:
        raise ConfigError(f"n={n} is out of bounds for the demo's grammar: set n from {at_least} to {at_most}.")


def _expand(template: str, source: random.Random) -> str:
    """Replaces each choice by one alternative, innermost first, and begins each sentence with a capital."""
    while match := re.search(r"<(\w+)>|{([^{}]*)}", template):
        alternatives = _PHRASES[match[1]] if match[1] else match[2]
        template = template[: match.start()] + source.choice(alternatives.split("|")) + template[match.end() :]
    return re.sub(r"(^|[.!?] )([a-z])", lambda start: start[1] + start[2].upper(), " ".join(template.split()))
