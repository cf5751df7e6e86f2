//go:build !race

package mesh

// hosts is how many hosts the limits of convergence are held at.
const hosts = 50
