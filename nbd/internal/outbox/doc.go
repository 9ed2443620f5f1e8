// Package outbox sends messages over a connection so that many of them share a system call.
//
// Anyone may put messages in. Whoever finds nobody sending sends, and goes on while
// messages wait; all others just leave theirs. Those who must not block send only what
// the kernel takes at once, and leave the rest to a goroutine that the [Box] keeps for it.
package outbox
