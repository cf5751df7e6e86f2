// Package e2e holds tests of the whole: swd and swctl as users run them,
// between containers with real stacks. It has no code but tests; each file
// draws its topology at the top. Every test has namespaces of its own and
// leaves nothing behind (package lab checks).
package e2e
