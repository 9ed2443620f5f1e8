// Package layers holds tests of the shape of the source, nothing else: which package may
// import which, what stands at the top level, how long files are, and that packages keep no state.
//
// They read the source itself, so files count whatever their build constraints, also when they do not compile.
package layers
