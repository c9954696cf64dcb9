package engine

import (
	"errors"
	"fmt"
)

// Classes of failure; test with errors.Is.
var (
	ErrNotFound    = errors.New("not found")
	ErrConflict    = errors.New("conflict")
	ErrInvalid     = errors.New("invalid")
	ErrNotModified = errors.New("not modified")
	ErrForbidden   = errors.New("forbidden")
	// ErrUnauthorized is a registry's refusal of credentials.
	ErrUnauthorized = errors.New("unauthorized")
	ErrUnsupported  = errors.New("unsupported")
	ErrUnavailable  = errors.New("unavailable")
	ErrNoSuchImage  = errors.New("no such image")
)

// Error is a failure with its class. Text is the whole message, worded as Docker words it where scripts match on it.
type Error struct {
	Class error
	Text  string
	Cause error // may be nil; never printed, Text already says what matters
}

func (e *Error) Error() string { return e.Text }

// Is makes errors.Is work with the class. A missing image is also something not found.
func (e *Error) Is(target error) bool {
	return target == e.Class || e.Class == ErrNoSuchImage && target == ErrNotFound
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Cause }

func fail(class error, format string, args ...any) error {
	return &Error{Class: class, Text: fmt.Sprintf(format, args...)}
}

func notFound(format string, args ...any) error { return fail(ErrNotFound, format, args...) }
func conflict(format string, args ...any) error { return fail(ErrConflict, format, args...) }
func invalid(format string, args ...any) error  { return fail(ErrInvalid, format, args...) }
