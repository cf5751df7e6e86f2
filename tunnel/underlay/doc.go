// Package underlay sends and receives a tunnel's UDP datagrams in batches.
package underlay
