//go:build !race

package collect_test

const stride = 1
