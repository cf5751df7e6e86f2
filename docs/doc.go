// Package docs is the pages beside it; its tests keep them true.
package docs
