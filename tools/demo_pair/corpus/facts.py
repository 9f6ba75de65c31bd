"""Explanations of everyday things, written for this corpus: (thing, what it is, more about it)."""

THINGS = [line.split("|") for line in """
lighthouse|a tower with a bright light on the coast|It shows ships the way at night and warns them of rocks
bridge|a structure that carries a road or a railway over a river or a valley|It lets people cross without boats
volcano|a mountain with an opening through which hot rock and gas escape|When it erupts, lava flows down its sides
glacier|a large mass of ice that moves slowly down a valley|It forms where more snow falls than melts
library|a place where many books are kept and lent|People go there to read, to learn and to work in silence
museum|a building where interesting and old objects are shown|Visitors can see art, tools or bones from long ago
telescope|an instrument that makes distant objects look nearer|Astronomers use it to study stars and planets
microscope|an instrument that makes very small things visible|Scientists use it to look at cells and tiny animals
compass|an instrument whose needle points to the north|Sailors and hikers use it to find their way
thermometer|an instrument that measures temperature|It tells us how hot or cold something is
bicycle|a vehicle with two wheels that is moved by pedals|It needs no fuel and keeps its rider healthy
train|a row of connected wagons that runs on rails|It carries many people or heavy goods over long distances
submarine|a ship that can travel under water|It fills its tanks with water to dive and with air to rise
rocket|a vehicle that flies by pushing hot gas backwards|It can leave the air of the Earth and reach space
airplane|a flying vehicle with wings and engines|It carries people between distant cities in a few hours
windmill|a building with large sails that are turned by the wind|In the past it ground grain into flour
dam|a wall across a river that holds back water|The stored water can make electricity
canal|a waterway that was dug by people|Boats use it to travel between rivers, lakes or seas
harbor|a sheltered place on the coast where ships can stay|Goods and people go on and off the ships there
desert|a dry region where very little rain falls|Only plants and animals that need little water live there
rainforest|a warm and wet forest with very many kinds of plants and animals|It rains there almost every day
island|a piece of land with water on all sides|Some islands are large, and others are only a few rocks
planet|a large round body that moves around a star|The Earth is one of the eight planets of the Sun
star|a huge ball of hot gas that gives off light|The Sun is the nearest star to us
comet|a ball of ice and dust that travels around the Sun|Near the Sun it grows a long bright tail
moon|a natural body that moves around a planet|Our Moon circles the Earth in about one month
rainbow|an arc of colors that appears when the sun shines through rain|Each drop splits the light into its colors
earthquake|a sudden shaking of the ground|It happens when large pieces of rock move under our feet
cloud|a mass of tiny drops of water or ice in the air|When the drops grow heavy, they fall as rain or snow
tide|the regular rise and fall of the sea|It is caused by the pull of the Moon and the Sun
river|a large stream of water that flows to a lake or to the sea|It begins in hills or mountains as a small spring
cave|a natural hollow in rock or under the ground|Water can dig a cave over thousands of years
fossil|the remains of a plant or an animal preserved in stone|Fossils tell us about life long ago
magnet|a piece of metal that attracts iron|Every magnet has a north pole and a south pole
battery|a device that stores energy and gives it off as electricity|It powers clocks, phones and toys
engine|a machine that turns fuel or electricity into movement|Cars, ships and airplanes need engines
computer|a machine that follows instructions and works with data|It can calculate, store texts and show pictures
keyboard|a set of keys for writing on a computer|Each key stands for a letter, a number or a command
calendar|a table of the days, weeks and months of a year|People use it to plan what they will do
clock|a device that shows the time|It counts hours, minutes and seconds
mirror|a smooth surface that reflects light|We use it to see our own face
candle|a stick of wax with a wick that burns slowly|Before electric lamps it lit many homes
umbrella|a round piece of cloth on a frame that keeps off the rain|It can be folded when the sun shines again
ladder|two long poles joined by steps|People use it to climb up to high places
hammer|a tool with a heavy head for driving nails|Carpenters and builders use it every day
wheel|a round object that turns around its center|It makes it easy to move heavy things
dictionary|a book that explains the meaning of words|The words stand in alphabetical order
newspaper|sheets of paper with news that are printed every day|It reports what happened in the city and in the world
letter|a written message on paper|It is put into an envelope and carried by the post
passport|a document that shows who you are and where you come from|You need it to travel to many countries
orchestra|a large group of musicians who play together|A conductor shows them when and how to play
piano|a musical instrument with black and white keys|Each key moves a small hammer that strikes a string
guitar|a musical instrument with strings that are plucked|Many singers play it while they sing
violin|a small musical instrument with four strings|It is played with a bow and held under the chin
drum|a musical instrument that is struck with sticks or hands|It gives the music its rhythm
school|a place where children learn together|Teachers help them to read, write and calculate
hospital|a place where sick people are treated|Doctors and nurses work there day and night
bakery|a shop where bread and cakes are made and sold|The bakers start to work early in the morning
market|a place where people buy and sell goods|Farmers bring fruit, vegetables and cheese
greenhouse|a building of glass in which plants grow|It keeps the warmth of the sun inside
garden|a piece of land where flowers, fruit or vegetables are grown|It needs sun, water and some care
farm|a piece of land where food is grown and animals are kept|It gives us milk, eggs, grain and vegetables
seed|the small part of a plant from which a new plant grows|It needs water, air and warmth to sprout
bread|a food made of flour, water and yeast that is baked in an oven|People have eaten it for thousands of years
cheese|a food made from milk|It can be soft or hard, mild or strong
honey|a sweet food that bees make from flowers|The bees store it for the winter
chocolate|a sweet food made from cocoa beans|The beans grow on trees in warm countries
salt|a white substance that makes food taste better|It comes from the sea or from mines
glass|a hard and clear material made from sand|It is used for windows, bottles and lenses
paper|a thin material made from wood|We write, print and draw on it
wool|the soft hair of sheep|It is spun into yarn for warm clothes
gravity|the force that pulls things toward each other|It keeps us on the ground and the Moon near the Earth
electricity|a form of energy that flows through wires|It gives us light and drives machines
photosynthesis|the way in which plants make food from light, water and air|It also gives off the oxygen we breathe
democracy|a way of government in which the people choose their leaders|Every adult has a vote
algorithm|a list of exact steps that solves a problem|Computers follow algorithms very quickly
recipe|a list of ingredients and steps for cooking a dish|If you follow it, the dish will be good
friendship|a close bond between people who like and trust each other|Good friends help each other in hard times
""".strip().splitlines()]

ANIMALS = [line.split("|") for line in """
fox|mammal|forests and fields|mice, berries and insects|a bushy tail and red fur
wolf|mammal|forests and mountains|deer and other animals|strong legs and sharp teeth
bear|mammal|forests and mountains|fish, berries and honey|thick fur and a heavy body
rabbit|mammal|meadows and gardens|grass and vegetables|long ears and strong back legs
mouse|mammal|fields and houses|grain and seeds|a long tail and round ears
elephant|mammal|grasslands and forests|leaves, grass and fruit|a long trunk and large ears
giraffe|mammal|grasslands|leaves of high trees|a very long neck and long legs
lion|mammal|grasslands|zebras and other animals|a strong body and, in males, a mane
tiger|mammal|forests|deer and wild pigs|orange fur with black stripes
zebra|mammal|grasslands|grass|black and white stripes
camel|mammal|deserts|dry plants and grass|a hump that stores fat
horse|mammal|meadows and farms|grass and hay|long legs and a mane
cow|mammal|meadows and farms|grass and hay|horns and a large body
sheep|mammal|meadows and hills|grass|thick white wool
dolphin|mammal|seas and oceans|fish|a smooth body and a clever mind
whale|mammal|oceans|fish and tiny sea animals|an enormous body and a flat tail
bat|mammal|caves and old buildings|insects and fruit|wings of thin skin
kangaroo|mammal|grasslands of Australia|grass and leaves|a pouch and strong back legs
owl|bird|forests and barns|mice and insects|large eyes and silent wings
eagle|bird|mountains and coasts|fish and small animals|sharp eyes and strong claws
penguin|bird|cold coasts|fish|black and white feathers and short wings
parrot|bird|warm forests|seeds and fruit|bright feathers and a curved beak
swan|bird|lakes and rivers|water plants|white feathers and a long neck
duck|bird|lakes and rivers|plants and small animals|broad beaks and webbed feet
crocodile|reptile|warm rivers|fish and other animals|a long snout with many teeth
snake|reptile|forests, fields and deserts|mice, birds and eggs|a long body without legs
turtle|reptile|seas, rivers and land|plants and small animals|a hard shell
frog|amphibian|ponds and wet meadows|insects and worms|long back legs and a sticky tongue
salmon|fish|rivers and seas|small fish and insects|silver scales
shark|fish|oceans|fish and seals|many rows of sharp teeth
bee|insect|meadows and gardens|nectar and pollen|four wings and a sting
ant|insect|almost all places on land|leaves, seeds and other insects|six legs and great strength
butterfly|insect|meadows and gardens|nectar|large colorful wings
spider|small animal|houses, gardens and forests|insects|eight legs and a fine web
octopus|sea animal|oceans|crabs and shells|eight arms with suckers
""".strip().splitlines()]
