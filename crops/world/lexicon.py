"""Everyday language of the simulated world, written for it: what videos say, what searchers type, and head
words that mean several things. It scales by combination: a subject of a topic with a facet of the topic's
kind is an intent.

One line a topic: `name (kind) head words: subject = other words; ...`. The word before `=` is the one that
videos use; searchers mostly use one of the words behind it. A head word names the topic briefly, and some
stand in several topics.
"""

import re
from dataclasses import dataclass

from numpy.random import Generator

# One line a kind of topics, in the same form: its facets, which make sense for its subjects.
FACETS = """
food: recipe = how to make, cook, homemade; taste test = which is best, trying, review; street stall = where to eat, market, vendor
sport: drills = training, practice, get better at; highlights = best moments, top plays; rules explained = how does it work, what counts
animal: care guide = how to look after, keeping; funny compilation = cute, being silly; in the wild = nature, documentary
craft: tutorial = step by step, how to, diy; tools = what do i need, kit; restoration = fix, repair, old to new
tech: unboxing = first look, new; troubleshooting = not working, fix, broken; tips and tricks = hidden features, how to use
music: lesson = learn, beginner, how to play; cover = my version, played by; gear demo = sound, which to buy
style: tutorial = how to do, easy, look; haul = what i bought, cheap; transformation = before after, glow up
place: travel vlog = visit, trip, what to see; on a budget = cheap, low cost; drone footage = from above, views
body: routine = daily, at home, ten minutes; mistakes = wrong, avoid, why does it hurt; progress diary = before after, results, 30 days
mind: explained = what is, simple words, for beginners; experiment = try it, test; history of = origin, story behind
"""

TOPICS = """
baking (food) bread, roll: sourdough = starter loaf, wild yeast bread; croissant = flaky pastry, butter roll; cheesecake = cream cake; brioche = sweet egg bread; cinnamon bun = swirl roll, sticky bun
noodles (food) noodle, bowl: ramen = japanese noodle soup; pho = vietnamese broth; pad thai = fried rice noodle; carbonara = egg bacon pasta; udon = thick noodle
sweets (food) jam, mint, candy: fudge = soft chocolate; marmalade = orange jam, bitter spread; meringue = whipped egg white; toffee = chewy caramel; peppermint bark = mint chocolate
vegetables (food) squash, bean, pepper: zucchini = courgette, green squash; aubergine = eggplant; kimchi = spicy cabbage; hummus = chickpea dip; ratatouille = vegetable stew
fruit (food) apple, date, orange: apple pie = fruit tart; mango lassi = yoghurt drink; smoothie = blended fruit; medjool date = palm fruit; dragon fruit = pitaya
meat (food) turkey, rib, grill: brisket = smoked beef; roast turkey = holiday bird; meatball = minced beef ball; schnitzel = breaded cutlet; kebab = skewered lamb
coffee (food) java, roast, press: espresso = short black; cold brew = iced coffee; latte art = milk foam drawing; pour over = filter cup; affogato = coffee ice cream
seafood (food) bass, crab, roll: sushi = raw fish rice; sea bass = baked fish; chowder = clam soup; ceviche = lime cured fish; paella = saffron seafood rice
breakfast (food) bowl, egg, roll: pancake = hotcake, flapjack; omelette = folded eggs; granola = crunchy oats; shakshuka = eggs in tomato; waffle = belgian batter
football (sport) match, pitch, goal: penalty = spot kick; dribbling = ball control; goalkeeper = saving shots; free kick = curved shot; offside = behind the defence
basketball (sport) court, shot, dunk: crossover = ankle breaker move; three pointer = long shot; rebound = catch missed ball; layup = close shot; zone defence = guard area
cricket game (sport) cricket, bat, pitch: googly = tricky spin; yorker = toe ball; wicket keeper = behind the stumps; cover drive = elegant hit; run chase = target innings
tennis (sport) court, match, racket: backhand = two handed stroke; serve = first shot; volley = net play; drop shot = short ball; tie break = deciding game
racket halls (sport) squash, court, racket: squash game = indoor wall ball; badminton = shuttlecock; table tennis = ping pong; padel = glass court doubles; pickleball = paddle game
swimming (sport) pool, lane, dive: butterfly = dolphin stroke; freestyle = front crawl; flip turn = wall somersault; open water = lake swim; springboard = diving jumps
winter (sport) ice, board, slope: snowboard carving = edge turns; figure skating = ice dance; slalom = ski gates; curling = stones on ice; ice hockey = puck team
climbing (sport) rock, wall, rope: bouldering = low climb no rope; lead climbing = rope first; belay = hold partner; dyno = jump hold; crack climbing = fist jam
boxing (sport) ring, match, punch: jab = straight punch; footwork = moving feet; shadow boxing = air punches; uppercut = rising punch; sparring = practice fight
archery (sport) bow, target, light: recurve = olympic bow; compound bow = pulley bow; arrow fletching = feather tail; crossbow = trigger bow; aiming = hit the middle
fishing (sport) bass, fly, line: bass fishing = lure lake; fly casting = river trout throw; ice fishing = frozen lake hole; carp rig = hair hook; crab trap = pot bait
dogs (animal) puppy, bark, pup: labrador = family retriever; husky = sled dog; dachshund = sausage dog; border collie = sheep herder; poodle = curly coat dog
cats (animal) kitten, cat, litter: maine coon = giant cat; siamese = talking cat; tabby = striped cat; sphynx = hairless cat; ragdoll = floppy cat
reptiles (animal) python, dragon, scale: ball python = pet snake; gecko = wall lizard; bearded dragon = desert lizard; tortoise = land turtle; chameleon = colour changer
birds (animal) crane, turkey, fly: parrot = talking bird; whooping crane = tall wader; hummingbird = tiny hover bird; owl = night hunter; wild turkey = forest gobbler
sea life (animal) seal, ray, shell: harbour seal = sea dog; octopus = eight arms; manta ray = flat giant fish; sea turtle = shell swimmer; orca = killer whale
rodents (animal) mouse, cage, wheel: hamster = wheel runner; guinea pig = cavy; chinchilla = dust bath pet; field mouse = tiny rodent; squirrel = nut hoarder
big cats (animal) jaguar, lion, cub: jaguar cat = spotted jungle cat; cheetah = fastest cat; snow leopard = mountain ghost; lioness = pride hunter; tiger = striped hunter
insects (animal) cricket, bee, fly: field cricket = chirping bug; honey bee = hive maker; monarch = orange butterfly; leafcutter = ant colony; dragonfly = pond glider
bats and caves (animal) bat, cave, wing: fruit bat = flying fox; vampire bat = blood drinker; cave salamander = blind newt; swift = cave nest bird; glowworm = shining larva
horses (animal) mare, ring, bow: dressage = horse dance; foal = baby horse; show jumping = fence ride; pony = small horse; mustang horse = wild herd
woodwork (craft) board, joint, nail: dovetail = interlocking corner; workbench = sturdy table; lathe bowl = turned wood; bookshelf = wall storage; cutting board = chopping block
metal (craft) iron, press, ring: blacksmith knife = forged blade; silver ring = jewellery band; welding bead = join steel; copper pot = hammered pan; padlock = opened lock
sewing (craft) thread, pattern, bow: tote = cloth bag; quilt = patch blanket; zipper = jammed fastener; hair bow = ribbon knot; jeans hem = shorten trousers
paper (craft) paper, fold, crane: origami crane = folded bird; pop up card = 3d greeting; bookbinding = stitch pages; papercut = layered scissors art; kite = flying sail
plumbing (craft) tap, pipe, trunk: dripping tap = leaky faucet; clogged drain = blocked sink; toilet cistern = running water tank; radiator = cold heater; shower head = weak spray
garden (craft) bed, spring, palm: raised bed = vegetable box; compost = rotting waste soil; rose pruning = cut back bush; potted palm = indoor tree; drip line = plant watering
cars (craft) jaguar, trunk, light: brake pad = squeaky stop; jaguar sedan = british saloon; headlight = foggy lamp; oil filter = engine service; boot lid = trunk rattle
bicycles (craft) wheel, chain, gear: puncture = flat tyre; derailleur = skipping gears; brake bleed = spongy lever; wheel truing = wobbly rim; bottom bracket = creaking pedals
phones (tech) apple, screen, light: iphone battery = apple phone dies fast; cracked screen = broken display; android update = new system; camera mode = night photo; sim card = no signal
computers (tech) mouse, screen, board: gaming mouse = clicky pointer; mechanical keyboard = loud keys; graphics card = gpu; motherboard = main circuit; laptop fan = overheating notebook
code (tech) python, java, script: python script = snake language program; java class = object program; spreadsheet formula = excel sum; git branch = version merge; web scraper = download pages
drones (tech) drone, wing, fly: fpv racing = goggles quad; gimbal = camera stabiliser; propeller = bent blade; battery pack = flight time; flight controller = drone brain
photo (tech) lens, light, shot: portrait lens = blurry background; tripod = steady stand; softbox = studio light; long exposure = silky water; raw edit = photo colours
smart home (tech) light, lock, hub: smart bulb = wifi lamp; robot vacuum = auto hoover; thermostat = heating dial; door sensor = entry alarm; voice speaker = talking assistant
guitar (music) bass, string, bow: bass guitar = four string groove; fingerpicking = plucked pattern; barre chord = one finger shape; slide blues = bottleneck; flamenco = spanish strum
piano (music) key, scale, note: arpeggio = broken chord; major scale = do re mi; sight reading = play from notes; boogie = rolling left hand; pedal = sustain foot
drums (music) stick, roll, beat: paradiddle = sticking pattern; snare roll = fast buzz; bass drum = kick pedal; cajon = box drum; jazz brushes = soft swing
rock bands (music) rock, riff, band: power chord = heavy two notes; guitar solo = fast lead; drum fill = transition break; distortion = fuzzy amp; stage diving = crowd jump
singing (music) voice, note, pitch: falsetto = high head voice; vibrato = wavering tone; beatbox = mouth drums; harmony = second voice; breath support = sing longer
hair (style) bow, bang, roll: french braid = plaited hair; curtain bangs = face fringe; perm rods = tight curls; balayage = painted highlights; buzz cut = clipper head
nails and skin (style) nail, mint, mask: gel nails = glossy manicure; cuticle = finger edge care; mint mask = cool face pack; sunscreen = spf lotion; retinol = night wrinkle cream
makeup (style) look, brush, light: winged liner = cat eye; contour = sculpt cheeks; lip stain = lasting red; concealer = hide dark circles; glitter lids = sparkly eyes
clothes (style) jacket, bow, tie: capsule wardrobe = few clothes; bow tie = formal knot; denim jacket = jean coat; thrift = second hand; raincoat = waterproof mac
tropics (place) palm, beach, java: java island = indonesia volcano; palm beach = florida coast; maldives = water bungalow; bali temple = rice terrace; amazon boat = jungle river
cities (place) bank, square, bridge: paris bistro = city of light; london south bank = thames walk; istanbul bazaar = turkey market; new york ferry = statue island; tokyo crossing = neon street
mountains (place) rock, pass, spring: hot spring = thermal bath; uluru = red rock desert; alpine hut = hike overnight; everest camp = base trek; canyon rim = deep gorge
yoga (body) bow, bridge, mat: bow pose = backbend; sun salutation = morning flow; pigeon = hip stretch; crow = arm balance; headstand = upside down
gym (body) press, bench, squat: bench press = chest push; deadlift = pick up barbell; squat form = knee bend depth; pull up = chin over bar; kettlebell = iron ball swing
running (body) run, lap, track: marathon plan = 42 km; shin splints = leg pain; interval run = fast slow laps; trail shoes = muddy path trainers; cadence = steps per minute
planets (mind) mercury, ring, light: mercury planet = closest to the sun; saturn ring = ice disc; black hole = swallows light; eclipse = sun covered; mars rover = red planet robot
chemistry (mind) mercury, ring, scale: liquid mercury = silver metal drop; acid base = ph colours; crystal growing = salt gems; dry ice = smoking cold; benzene ring = carbon hexagon
money (mind) bank, scale, press: compound interest = money grows; central bank = prints money; index fund = lazy investing; inflation = prices rise; mortgage = house loan
weather (mind) spring, light, front: tornado = twister; northern lights = aurora; spring tide = moon high water; thunder = lightning bang; monsoon = rainy season
"""


@dataclass(frozen=True, slots=True)
class Intent:
    """One need: a subject of a topic under one facet. `says` are the videos' words, `types` the
    searchers'.
    """

    topic: int
    head: tuple[str, ...]
    subject: str
    subject_types: tuple[str, ...]
    facet: str
    facet_types: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Lexicon:
    """Topic names and all intents, in the order of the table above."""

    topics: tuple[str, ...]
    intents: tuple[Intent, ...]


def pick(options: tuple[str, ...], rng: Generator) -> str:
    """One of them, each as likely."""
    return options[int(rng.integers(len(options)))]


def words(text: str, separator: str = ",") -> tuple[str, ...]:
    """The parts of a text, without the space around them."""
    return tuple(word.strip() for word in text.split(separator) if word.strip())


def _said_and_typed(text: str) -> list[tuple[str, tuple[str, ...]]]:
    """(what videos say, what searchers type) of each `says = types, ...; ...`."""
    pairs = (part.partition("=") for part in words(text, ";"))
    return [(says.strip(), words(types)) for says, _, types in pairs]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tongue:
    """A language of the world: its tables, the words that say nothing of a topic, and what stands between two
    words.
    """

    space: str
    facets: str
    topics: str
    modifiers: str
    openers: str
    closers: str
    covers: str


ENGLISH = Tongue(
    space=" ",
    facets=FACETS,
    topics=TOPICS,
    modifiers="easy, best, video, quick, for kids, 2026, near me, good, please, short, funny, top 10, why",
    openers="my, the best, quick, weekend, honest, part 2, easy, a real, live, tiny, my first",
    closers="at home, in one minute, for everyone, gone wrong, with friends, asmr, day 7, full guide",
    covers="wow, must see, number 3 surprised me, watch to the end, new, full video, save this",
)


def load(tongue: Tongue = ENGLISH) -> Lexicon:
    """Parses the tables (in English at least 60 topics): a subject with each facet of the topic's kind is an
    intent.
    """
    lines = (line.partition(":") for line in tongue.facets.strip().splitlines())
    facets = {kind: _said_and_typed(text) for kind, _, text in lines}
    topics, intents = [], []
    for number, line in enumerate(tongue.topics.strip().splitlines()):
        match = re.fullmatch(r"(?P<name>[^(]+)\((?P<kind>\w+)\) (?P<heads>[^:]+): (?P<subjects>.+)", line)
        if match is None:
            raise ValueError(
                f"lexicon line {number + 1} is not `name (kind) heads: subject = words; ...`: {line[:60]}"
            )
        topics.append(match["name"].strip())
        intents += [
            Intent(number, words(match["heads"]), *subject, *facet)
            for subject in _said_and_typed(match["subjects"])
            for facet in facets[match["kind"]]
        ]
    return Lexicon(tuple(topics), tuple(intents))
