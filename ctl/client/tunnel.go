package client

import (
	"context"

	"heddle/ctl/api"
)

// Peers returns the static peers, by name.
func (c *Client) Peers(ctx context.Context) (all []api.Peer, err error) {
	return all, c.get(ctx, api.PathPeers, nil, &all)
}

// Peer returns one static peer.
func (c *Client) Peer(ctx context.Context, name string) (p api.Peer, err error) {
	return p, c.get(ctx, member(api.PathPeers, name), nil, &p)
}

// AddPeer makes a static peer from a config.Peer.
func (c *Client) AddPeer(ctx context.Context, spec any) (p api.Peer, err error) {
	return p, c.post(ctx, api.PathPeers, spec, &p)
}

// RemovePeer removes a static peer.
func (c *Client) RemovePeer(ctx context.Context, name string) error {
	return c.remove(ctx, member(api.PathPeers, name), nil)
}

// Mesh returns this host's membership.
func (c *Client) Mesh(ctx context.Context) (m api.Mesh, err error) {
	return m, c.get(ctx, api.PathMesh, nil, &m)
}

// JoinMesh asks the members of a config.Mesh to be let in.
func (c *Client) JoinMesh(ctx context.Context, spec any) (m api.Mesh, err error) {
	return m, c.post(ctx, api.PathMesh, spec, &m)
}

// LeaveMesh says goodbye to the mesh.
func (c *Client) LeaveMesh(ctx context.Context) error { return c.remove(ctx, api.PathMesh, nil) }

// Members returns the members of the mesh, by name, with what they announce if
// that is wanted.
func (c *Client) Members(ctx context.Context, endpoints bool) (all []api.Member, err error) {
	wanted := ""
	if endpoints {
		wanted = "1"
	}
	return all, c.get(ctx, api.PathMembers, params("endpoints", wanted), &all)
}

// Keys returns the keys of the mesh.
func (c *Client) Keys(ctx context.Context) (all []api.Key, err error) {
	return all, c.get(ctx, api.PathKeys, nil, &all)
}

// AddKey has swd take what is encrypted with a key.
func (c *Client) AddKey(ctx context.Context, key api.MeshKey) (k api.Key, err error) {
	return k, c.post(ctx, api.PathKeys, key, &k)
}

// ActivateKey has swd encrypt with a key that it has.
func (c *Client) ActivateKey(ctx context.Context, id string) (k api.Key, err error) {
	return k, c.post(ctx, member(api.PathKeys, id)+api.ActionActivate, nil, &k)
}

// RetireKey has swd forget a key that isn't active.
func (c *Client) RetireKey(ctx context.Context, id string) error {
	return c.remove(ctx, member(api.PathKeys, id), nil)
}
