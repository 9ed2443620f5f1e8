// Package faulty wraps a backend for tests: a hook decides for each call whether it fails, waits, is done in part, late or
// twice.
//
// Every call of the backend and of its objects but Size and Close gets a running number, from 1, and goes
// through the hook before anything is done. While a hook is set, Try methods say that they would block, so that a hook that
// waits holds no caller and each operation is counted once; [Backend.SetInline] has them go through the hook instead.
package faulty
