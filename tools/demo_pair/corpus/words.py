"""Word lists of our own that the generators share."""

NAMES = """Anna Ben Clara David Emma Felix Grace Henry Ivy Jack Kate Leo Maria Noah Olivia Paul Rosa Sam Tina Victor
Amir Lena Omar Nina Hugo Sofia Max Ella Peter Ruth Alice Tom Lucy Daniel Mia Adam Julia Oscar Laura Simon""".split()

COMMON = """apple table river garden window house tree stone bread water music school train ship paper letter horse
chair bottle flower mountain summer winter spring market bridge street castle forest island planet rocket camera
pencil orange lemon banana cherry potato carrot tomato onion butter cheese sugar coffee dinner kitchen mirror pillow
blanket candle basket hammer ladder engine wheel pocket button jacket shirt shoe glove hat scarf ring clock phone
radio doctor teacher farmer sailor baker painter singer driver pilot nurse king queen prince dragon giant wizard
tiger lion rabbit mouse monkey donkey camel eagle parrot turtle frog spider ant bee butterfly shark whale dolphin
cloud storm thunder rain snow wind sun moon star sky ocean beach desert valley lake field road path gate door roof
wall floor corner room garage office library museum theater hospital station airport harbor village city country
world story picture color number question answer idea dream friend family brother sister mother father child baby
game ball kite drum piano guitar violin trumpet flag map book page word sentence lesson test prize medal crown
gold silver iron copper wood glass plastic leather cotton wool silk sand clay brick fire smoke light shadow night
morning evening week month year hour minute second spoon fork knife plate bowl cup glass oven stove""".split()
COMMON = sorted(set(COMMON))

ADJECTIVES = """happy quiet brave clever gentle lazy hungry tired curious kind proud shy tiny tall young old wise lonely
cheerful careful patient busy sleepy funny friendly""".split()

COLORS = "red blue green yellow black white brown orange purple grey pink".split()

ITEMS = [  # (one, many)
    ("apple", "apples"), ("book", "books"), ("pencil", "pencils"), ("coin", "coins"), ("marble", "marbles"),
    ("cookie", "cookies"), ("flower", "flowers"), ("stamp", "stamps"), ("shell", "shells"), ("card", "cards"),
    ("balloon", "balloons"), ("egg", "eggs"), ("orange", "oranges"), ("toy", "toys"), ("stone", "stones"),
    ("button", "buttons"), ("ticket", "tickets"), ("candle", "candles"), ("key", "keys"), ("cup", "cups"),
]

CAPITALS = dict(line.split(":") for line in """France:Paris
Germany:Berlin
Italy:Rome
Spain:Madrid
Portugal:Lisbon
Austria:Vienna
Poland:Warsaw
Norway:Oslo
Sweden:Stockholm
Finland:Helsinki
Denmark:Copenhagen
Ireland:Dublin
Greece:Athens
Hungary:Budapest
Romania:Bucharest
Bulgaria:Sofia
Belgium:Brussels
Iceland:Reykjavik
Ukraine:Kyiv
Croatia:Zagreb
Serbia:Belgrade
Slovakia:Bratislava
Slovenia:Ljubljana
Estonia:Tallinn
Latvia:Riga
Lithuania:Vilnius
Switzerland:Bern
Turkey:Ankara
Russia:Moscow
Japan:Tokyo
China:Beijing
India:New Delhi
Thailand:Bangkok
Vietnam:Hanoi
Indonesia:Jakarta
Nepal:Kathmandu
Mongolia:Ulaanbaatar
Iran:Tehran
Iraq:Baghdad
Egypt:Cairo
Kenya:Nairobi
Ghana:Accra
Nigeria:Abuja
Morocco:Rabat
Tunisia:Tunis
Ethiopia:Addis Ababa
Senegal:Dakar
Uganda:Kampala
Canada:Ottawa
Mexico:Mexico City
Cuba:Havana
Brazil:Brasilia
Argentina:Buenos Aires
Chile:Santiago
Peru:Lima
Colombia:Bogota
Ecuador:Quito
Uruguay:Montevideo
Australia:Canberra
New Zealand:Wellington
Jordan:Amman
Lebanon:Beirut
Qatar:Doha
Pakistan:Islamabad
Bangladesh:Dhaka
South Korea:Seoul""".splitlines())

OPPOSITES = dict(p.split(":") for p in """hot:cold big:small up:down left:right open:closed old:new fast:slow day:night
light:dark happy:sad hard:soft high:low early:late full:empty rich:poor strong:weak wet:dry clean:dirty loud:quiet
long:short thick:thin near:far inside:outside first:last true:false begin:end win:lose push:pull buy:sell love:hate
always:never sweet:sour young:old heavy:light deep:shallow wide:narrow asleep:awake brave:afraid
""".split())

DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = ("January February March April May June July August September October November December").split()
NUMBER_WORDS = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
seventeen eighteen nineteen twenty""".split()

PLURALS = dict(p.split(":") for p in """cat:cats dog:dogs box:boxes city:cities child:children mouse:mice foot:feet
tooth:teeth leaf:leaves knife:knives baby:babies bus:buses man:men woman:women goose:geese wolf:wolves day:days
glass:glasses story:stories potato:potatoes fox:foxes tree:trees book:books key:keys""".split())
