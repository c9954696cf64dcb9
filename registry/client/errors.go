package client

import "errors"

// Classes of failure; test with errors.Is.
var (
	ErrNotFound     = errors.New("not found")
	ErrDenied       = errors.New("access denied")
	ErrUnavailable  = errors.New("registry unavailable")
	ErrDigest       = errors.New("content does not match its digest")
	ErrTooManyTries = errors.New("too many requests")
)
