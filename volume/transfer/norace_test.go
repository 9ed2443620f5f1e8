//go:build !race

package transfer_test

// stride is how far apart the cases are that an enumeration takes, on average.
const stride = 3
