"""The vocabulary of the sample platform: data only, so that `platform` reads as rules and not as prose.

`{thing}` stands for one of a topic's things, so that a conversation's title and messages are about the same.
"""

from __future__ import annotations

from typing import NamedTuple


class Topic(NamedTuple):
    """Questions about one field, and their answers."""

    things: tuple[str, ...]
    titles: tuple[str, ...]
    questions: tuple[str, ...]
    answers: tuple[str, ...]


# fmt: off
TOPICS: tuple[Topic, ...] = (
    Topic(
        things=(
            "the export button", "the mobile app", "my invoice", "the password reset", "the shared folder",
            "two-factor sign-in", "the calendar sync", "the printer queue", "the team mailbox",
            "the VPN client",
        ),
        titles=(
            "Trouble with {thing}", "{thing} stopped working", "Help needed: {thing}",
            "Question about {thing}", "Ticket: {thing} after the update", "Who looks after {thing}?",
        ),
        questions=(
            "Since this morning {thing} shows an error. What can I try before I open a ticket?",
            "A colleague in Lisbon has the same problem with {thing}. Is it a known issue?",
            "Could you write a short reply to a customer who complains about {thing}?",
            "Which log should I look at when {thing} does not respond?",
            "We changed browsers last week and now {thing} is slow. Is that related?",
            "How do I explain the workaround for {thing} to someone who is not technical?",
        ),
        answers=(
            "Sign out, clear the cache for this site only, and try {thing} again in a private window.",
            "If that helps, an extension is the likely cause; switch them on again one at a time.",
            "Please note the exact time at which {thing} failed, since support can then find it in the log.",
            "The status page lists no incident, so it is worth checking the account's permissions next.",
            "Here is a reply that apologises once, says what happens next, and names a date.",
            "Should {thing} still fail after a restart, send the request number from the error message.",
        ),
    ),
    Topic(
        things=(
            "a slow SQL query", "a flaky test", "a Python generator", "the retry loop", "a Docker image",
            "the CSV importer", "a race condition", "the pagination", "a regular expression",
            "the CI pipeline",
        ),
        titles=(
            "Debugging {thing}", "Refactor {thing}", "Review: {thing}", "How to test {thing}",
            "{thing}, step by step", "Making {thing} faster",
        ),
        questions=(
            "Can you spot what is wrong with {thing}? It works on my laptop and fails on the server.",
            "What would be the simplest way to measure {thing} before I change anything?",
            "I inherited {thing} from another team. Where would you start reading?",
            "Please rewrite {thing} without the nested conditionals.",
            "Is there a standard library function that replaces {thing}?",
            "The reviewer asks for a test of {thing}. What is worth asserting?",
        ),
        answers=(
            "Start by reproducing it: a script of ten lines that fails every time beats a theory.",
            "The state is shared between two callers, so {thing} sees a value from the previous run.",
            "Add an index on the column you filter by and compare the plans before and after.",
            "I would split {thing} in two: one function that decides, another that does.",
            "Set a timeout explicitly; the default waits for ever, which is what you are seeing.",
            "A test with an empty input, one with a duplicate and one out of order would cover {thing}.",
        ),
    ),
    Topic(
        things=(
            "a week in Porto", "the night train to Vienna", "Kyoto in November",
            "a road trip through Oaxaca", "the ferry to Tallinn", "three days in Marrakesh",
            "hiking in the Tatras", "a layover in Doha", "Cape Town with children", "the Scottish islands",
        ),
        titles=(
            "Planning {thing}", "Budget for {thing}", "{thing}: what to pack", "Itinerary for {thing}",
            "{thing} without a car", "Worth it? {thing}",
        ),
        questions=(
            "We are four adults and a toddler. How would you plan {thing}?",
            "What should I book early for {thing}, and what can wait?",
            "Roughly what does {thing} cost for two if we cook ourselves?",
            "Is it still warm enough for {thing} in the second half of October?",
            "My flight lands late in the evening. How does that change {thing}?",
            "Which of the sights can we leave out of {thing} without regret?",
        ),
        answers=(
            "For {thing} I would stay in one place and make day trips, which saves packing.",
            "Reserve the long-distance tickets first; they are cheapest about two months ahead.",
            "Plan one fixed thing a day and leave the afternoon open, especially with a small child.",
            "Carry some cash, since the smaller guest houses do not take cards.",
            "If it rains, swap the coast for the old town: both are within a short walk.",
            "A realistic budget for {thing} is a third for the bed, a third for meals, a third for trains.",
        ),
    ),
    Topic(
        things=(
            "red lentil soup", "sourdough bread", "vegan lasagne", "kimchi", "apple strudel", "jollof rice",
            "birthday cake", "chickpea curry", "potato salad", "Sunday roast",
        ),
        titles=(
            "Recipe: {thing}", "{thing} for twelve guests", "{thing} without dairy",
            "My {thing} went wrong", "Quick {thing} on a weeknight", "Shopping list for {thing}",
        ),
        questions=(
            "How far ahead can I make {thing} without it losing its texture?",
            "My {thing} came out wrong, and I cannot say why. Can it be saved?",
            "What can I use instead of butter in {thing}?",
            "Please scale {thing} up for fourteen people and give the weights in grams.",
            "The oven here only goes to 220 degrees. Does that work for {thing}?",
            "Which side dish goes with {thing} and can be served cold?",
        ),
        answers=(
            "Make {thing} the day before and keep it covered; the flavour is better for it.",
            "Add acid rather than more liquid: a spoonful of lemon juice balances the salt.",
            "Olive oil works, but use a fifth less and let it rest for ten minutes longer.",
            "For that many guests it is easier to prepare two trays than a single deep one.",
            "Lower heat is fine if you give it another quarter of an hour and do not open the door.",
            "A salad of fennel and orange is fresh enough to stand beside {thing}.",
        ),
    ),
    Topic(
        things=(
            "the office lease", "a non-disclosure agreement", "the supplier contract", "the notice period",
            "a freelance agreement", "the data processing addendum", "the warranty clause",
            "a licence renewal", "the tenancy deposit", "the purchase order",
        ),
        titles=(
            "Summary of {thing}", "Draft: {thing}", "Risks in {thing}", "{thing} in plain English",
            "Changes to {thing}", "Deadline for {thing}",
        ),
        questions=(
            "Please summarise {thing} in five sentences for the board.",
            "Which clause in {thing} decides who pays if delivery is late?",
            "The other side struck out a paragraph of {thing}. What did we lose?",
            "Can you turn {thing} into a checklist with dates?",
            "Is thirty days a usual term for {thing}, or should we ask for sixty?",
            "How would you word a polite refusal of the new terms in {thing}?",
        ),
        answers=(
            "In short, {thing} renews by itself unless notice is given in writing before the quarter ends.",
            "Liability is capped at the fees of the last twelve months, except for confidential data.",
            "The wording is one-sided but common; I would ask for the same right in return.",
            "This is general information about {thing}, so have counsel confirm it before anybody signs.",
            "There are four dates to watch, and the earliest is the inspection of the goods.",
            "A short letter that accepts the price and proposes another term keeps the discussion open.",
        ),
    ),
    Topic(
        things=(
            "the quarterly report", "a cover letter", "the newsletter", "a conference talk",
            "the onboarding guide", "a product announcement", "the meeting minutes", "a thank-you note",
            "the grant proposal", "a school essay",
        ),
        titles=(
            "Outline for {thing}", "Shorten {thing}", "{thing}: second draft", "Proofread {thing}",
            "A better opening for {thing}", "Tone of {thing}",
        ),
        questions=(
            "Could you cut {thing} to one page without losing the figures?",
            "The first paragraph of {thing} is dull. Give me three other openings.",
            "Please translate {thing} into simple English for readers abroad.",
            "Does {thing} sound too formal for people who know each other well?",
            "What is missing from {thing} if the reader has never heard of us?",
            "Turn my bullet points into running text for {thing}.",
        ),
        answers=(
            "I moved the result to the first line of {thing}, since most readers stop early.",
            "Two of the figures say the same; keep the one with the comparison to last year.",
            "Here is a version that is a third shorter and keeps every name and number.",
            "The tone is friendly now, and the request comes before the explanation.",
            "For readers who are new, one sentence about what the team does would help {thing}.",
            "I left the quotation as it was and marked two places where a source is needed.",
        ),
    ),
    Topic(
        things=(
            "linear regression", "the French subjunctive", "photosynthesis", "compound interest",
            "the Ottoman railways", "conditional probability", "Spanish verbs of motion", "the water cycle",
            "basic chess endings", "reading sheet music",
        ),
        titles=(
            "Understanding {thing}", "Quiz me on {thing}", "{thing} for beginners", "Exercises: {thing}",
            "Notes on {thing}", "Exam next week: {thing}",
        ),
        questions=(
            "Explain {thing} as you would to a curious twelve-year-old.",
            "Give me five exercises on {thing}, from easy to hard, with the answers at the end.",
            "I always mix up two ideas in {thing}. Is there a trick to remember them?",
            "What should I know before I start with {thing}?",
            "Can you check my notes on {thing} for mistakes?",
            "How long would it take to learn {thing} with half an hour a day?",
        ),
        answers=(
            "The core of {thing} is one idea, and everything else follows from applying it twice.",
            "Try the first exercise without looking anything up; the second builds on it.",
            "Your notes are right except for the third point, where cause and effect are swapped.",
            "With half an hour a day you will be comfortable in about six weeks.",
            "A small drawing helps here: put what you know on the left and what you look for on the right.",
            "Once you can explain {thing} to a friend without notes, move on to the next chapter.",
        ),
    ),
    Topic(
        things=(
            "the sales dashboard", "the customer survey", "churn in the spring", "the stock forecast",
            "the website funnel", "delivery times", "the marketing spend", "the support backlog",
            "the energy bill", "the hiring plan",
        ),
        titles=(
            "What explains {thing}?", "Chart of {thing}", "{thing} by region", "Outliers in {thing}",
            "Forecast: {thing}", "Clean-up of {thing}",
        ),
        questions=(
            "The numbers for {thing} jumped in week 14. What would you check first?",
            "Which chart shows {thing} best to people who have one minute?",
            "Please write a formula that groups {thing} by month and region.",
            "Half of the rows of {thing} have no date. May I leave them out?",
            "Is the difference in {thing} between the two groups large enough to matter?",
            "Draft three findings about {thing} for Monday's meeting.",
        ),
        answers=(
            "Check first whether {thing} was counted alike in both weeks; a new filter explains most jumps.",
            "A plain line with last year's in grey is easier to read than stacked bars.",
            "Rows without a date are not missing at random, so report them apart instead of dropping them.",
            "The difference is about two standard errors, which is a hint and not yet a proof.",
            "The three findings are growth in the north, a seasonal dip, and one very large customer.",
            "Keep the raw figures of {thing} on a separate sheet so that every step can be repeated.",
        ),
    ),
)

GREETINGS = (
    "", "", "", "", "Hi, ", "Hello! ", "Good morning. ", "Quick one: ", "Me again. ",
    "Sorry to bother you. ",
)
FOLLOW_UPS = (
    "Thanks, that worked.", "Can you make it shorter?", "And what if that is not possible?",
    "Could you give an example?", "I tried it and it is better, but not perfect.", "Why is that?",
    "Please put it in a table.", "Which one would you pick?", "Good point, I had not thought of that.",
    "Can you say that again in German?", "What is the second-best option?",
    "That is not quite what I meant.", "How sure are you?", "Perfect. One more thing:",
    "Does that still hold next year?",
)
DETAILS = (
    "It should be done by Friday.", "My manager will read it too.", "I have about an hour for it.",
    "We tried something similar in March.", "Please keep it simple.", "There are about 40 people involved.",
    "The budget is 1,200 euros.", "I am on a train, so a short answer is fine.",
    "It is the third time this month.", "I attached what I have so far.",
    "Nothing else changed on our side.", "English is not my first language.",
)

# Given names and family names that go together, as they are written in a user name.
PEOPLE = (
    (
        "oliver amelia harry isla jack poppy callum freya",
        "smith taylor davies hughes murray clarke bennett walsh",
    ),
    (
        "lukas hannah felix marie jonas lena paul emilia",
        "mueller schmidt weber fischer wagner becker hoffmann koch",
    ),
    (
        "camille hugo manon louis chloe antoine ines theo",
        "martin dubois moreau laurent girard roux fontaine leroy",
    ),
    (
        "lucia mateo sofia pablo carmen alvaro marta diego",
        "garcia fernandez lopez romero navarro torres serrano vidal",
    ),
    (
        "giulia luca chiara matteo elena davide sara nico",
        "rossi ferrari bianchi romano colombo ricci greco conti",
    ),
    (
        "zofia jakub hanna antoni maja filip oliwia marek",
        "kowalska nowak wojcik mazur krawczyk zielinska dudek pawlak",
    ),
    (
        "ingrid lars astrid erik freja nils signe anders",
        "hansen larsen berg lindqvist nilsen dahl holm sandberg",
    ),
    (
        "aino eero helmi onni venla juhani siiri tapio",
        "korhonen virtanen nieminen laine heikkinen salo aalto koskela",
    ),
    (
        "sanne daan lotte bram femke sem noor thijs",
        "devries jansen bakker visser smit mulder dekker vanleeuwen",
    ),
    (
        "olena taras iryna bohdan kateryna andrii oksana yurii",
        "shevchenko kovalenko bondar tkachuk melnyk lysenko hrytsenko moroz",
    ),
    (
        "eleni nikos maria giorgos katerina dimitris ioanna petros",
        "papadopoulos georgiou nikolaidis vasileiou pappas makris ioannou kostas",
    ),
    (
        "elif mehmet zeynep emre ayse can defne burak",
        "yilmaz kaya demir celik sahin ozturk aydin arslan",
    ),
    (
        "priya arjun ananya rohan kavya vikram meera aditya",
        "sharma patel iyer reddy nair gupta banerjee singh",
    ),
    (
        "fatima ahmed zainab hassan amina omar salma khalid",
        "khan hussain malik elsayed haddad mansour rahman farouk",
    ),
    (
        "mei wei xiaoming lihua jing hao yan lei",
        "wang li zhang liu chen yang zhao huang",
    ),
    (
        "yuki haruto aoi ren sakura sota hina kaito",
        "sato suzuki takahashi tanaka watanabe nakamura kobayashi mori",
    ),
    (
        "minjun seoyeon jiho hayun dohyun jiwoo yuna taeyang",
        "kim lee park choi jung kang yoon lim",
    ),
    (
        "linh minh thao quang huong tuan mai duc",
        "nguyen tran le pham hoang vu dang bui",
    ),
    (
        "chinedu ngozi emeka adaeze tunde folake ibrahim aisha",
        "okafor adeyemi balogun eze okonkwo bello nwosu lawal",
    ),
    (
        "wanjiru kamau achieng otieno nia juma zawadi baraka",
        "mwangi njoroge odhiambo kimani wambui mutua omondi chebet",
    ),
    (
        "thandi sipho lerato kagiso zanele thabo nomsa pieter",
        "dlamini nkosi mokoena vandermerwe zulu botha khumalo naidoo",
    ),
    (
        "joao beatriz pedro larissa tiago camila rafael ana",
        "silva santos oliveira pereira costa almeida ribeiro carvalho",
    ),
    (
        "valentina santiago ximena emiliano regina leonardo paola ivan",
        "hernandez martinez gonzalez ramirez flores cruz morales ortega",
    ),
    (
        "emma liam olivia noah ava ethan grace mason",
        "johnson williams brown miller anderson thompson sullivan rivera",
    ),
)

WORKSPACES = (
    "Customer Support", "Engineering", "Legal", "Sales Europe", "Human Resources", "Research", "Finance",
    "Marketing", "Product", "Operations", "Procurement", "Quality", "Training", "Facilities", "Press",
    "Data Platform",
)
DOCUMENTS = (
    "Employee Handbook", "Pricing Sheet", "Release Notes", "Security Policy", "Onboarding Checklist",
    "Supplier List", "Meeting Minutes", "Style Guide", "Incident Review", "Annual Budget", "Privacy Notice",
    "Installation Guide", "Travel Policy", "Market Study", "Interview Transcript", "Service Catalogue",
)
UPLOADS = (
    "scan", "invoice", "receipt", "contract", "passport", "delivery-note", "timesheet", "letter",
)
UPLOAD_TYPES = (
    "jpg", "png", "pdf", "txt",
)
CAMERAS = (
    "gate", "lobby", "loading-dock", "car-park", "stairwell", "server-room",
)
SIGHTINGS = (
    "A person walked past {camera} and did not stop.", "A van waited near {camera} for several minutes.",
    "Two people entered by {camera} with a badge.", "A cyclist turned round in front of {camera}.",
    "Somebody tried the handle at {camera} and left.", "A cat crossed the picture at {camera}.",
    "A parcel was left at {camera} and collected later.",
    "The light at {camera} went off while someone was there.",
)
