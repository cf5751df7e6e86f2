package config

import (
	"fmt"
	"time"
)

// DefaultAgeing is IEEE 802.1D's ageing time (clause 7.9.2, table 7-5).
const DefaultAgeing = Duration(300 * time.Second)

// Duration is a time.Duration that is written as text, as 300s or 5m.
type Duration time.Duration

// String returns the duration as a user writes it.
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText writes the duration as text.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads a duration with its unit.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return fmt.Errorf("%s is no duration: want a number and a unit, as 300s or 5m", quote(string(b)))
	}
	*d = Duration(v)
	return nil
}
