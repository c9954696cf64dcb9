package engine

import "math/rand/v2"

var (
	nameMoods = []string{"agile", "amber", "bold", "brave", "bright", "calm", "clever", "cosy", "crisp", "dapper", "eager",
		"early", "fair", "fleet", "fond", "gentle", "glad", "golden", "hardy", "honest", "jolly", "keen", "kind", "lively",
		"lucid", "merry", "mild", "modest", "nimble", "noble", "patient", "placid", "plucky", "proud", "quick", "quiet",
		"ready", "rosy", "silent", "silver", "sober", "spry", "steady", "sunny", "swift", "tidy", "trusty", "vivid", "warm", "wise"}
	namePeople = []string{"archimedes", "babbage", "bernoulli", "bohr", "boole", "cantor", "cauchy", "curie", "darwin",
		"descartes", "dijkstra", "einstein", "erdos", "euclid", "euler", "faraday", "fermat", "fermi", "fourier", "franklin",
		"galileo", "galois", "gauss", "germain", "godel", "hamilton", "hilbert", "hopper", "huygens", "hypatia", "jacobi",
		"kepler", "knuth", "kovalevskaya", "lagrange", "laplace", "leibniz", "lovelace", "maxwell", "meitner", "mendel",
		"newton", "noether", "pascal", "planck", "poincare", "ramanujan", "riemann", "shannon", "turing"}
)

// randomName makes a name people can say.
func randomName() string {
	return nameMoods[rand.IntN(len(nameMoods))] + "_" + namePeople[rand.IntN(len(namePeople))]
}
