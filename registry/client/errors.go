package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// Classes of failure; test with errors.Is.
var (
	ErrNotFound     = errors.New("not found")
	ErrDenied       = errors.New("access denied")
	ErrUnavailable  = errors.New("registry unavailable")
	ErrDigest       = errors.New("content does not match its digest")
	ErrTooManyTries = errors.New("too many requests")
)

// maxErrorBody bounds what is read of an error's explanation.
const maxErrorBody = 64 << 10

// Error is a registry's refusal. Its text is one line.
type Error struct {
	Host    string
	Status  int
	Code    string // the registry's word, as MANIFEST_UNKNOWN; may be empty
	Message string // the registry's explanation, shortened; may be empty
}

// Error gives the refusal as Docker words it: the code in lower case, and the
// message.
func (e *Error) Error() string {
	msg := e.Message
	if msg == "" {
		msg = strings.ToLower(http.StatusText(e.Status))
	}
	if e.Code != "" {
		msg = strings.ReplaceAll(strings.ToLower(e.Code), "_", " ") + ": " + msg
	} else if e.Message == "" {
		msg = fmt.Sprintf("registry %s answered %d %s", e.Host, e.Status, msg)
	}
	return msg
}

// Is maps the status to the classes above.
func (e *Error) Is(target error) bool {
	switch e.Status {
	case http.StatusNotFound:
		return target == ErrNotFound
	case http.StatusUnauthorized, http.StatusForbidden:
		return target == ErrDenied
	case http.StatusTooManyRequests:
		return target == ErrTooManyTries
	}
	return e.Status >= 500 && target == ErrUnavailable
}

// refusal reads the error that a response holds, and closes it.
func refusal(res *http.Response) error {
	defer res.Body.Close()
	e := &Error{Status: res.StatusCode}
	if res.Request != nil {
		e.Host = res.Request.URL.Host
	}
	raw, _ := io.ReadAll(io.LimitReader(res.Body, maxErrorBody))
	var body struct {
		Errors []struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"errors"`
		Details string `json:"details"`
		Message string `json:"message"`
	}
	if json.Unmarshal(raw, &body) == nil {
		e.Message = body.Details
		if e.Message == "" {
			e.Message = body.Message
		}
		if len(body.Errors) > 0 {
			e.Code, e.Message = oneLine(body.Errors[0].Code, 64), body.Errors[0].Message
		}
		e.Message = oneLine(e.Message, 300)
	}
	return e
}

// oneLine makes foreign text fit for one line of a terminal.
func oneLine(s string, max int) string {
	s = strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || (r >= 0x80 && r < 0xa0) }), " ")
	if len(s) > max {
		s = strings.ToValidUTF8(s[:max], "") + "…"
	}
	return s
}

// unreachable words a request that got no answer.
func unreachable(host string, err error) error {
	var u *url.Error
	for errors.As(err, &u) { // its text repeats the whole URL
		err, u = u.Err, nil
	}
	if errors.Is(err, context.Canceled) {
		return err
	}
	return &reachError{host, err}
}

type reachError struct {
	host string
	err  error
}

func (e *reachError) Error() string {
	return fmt.Sprintf("cannot reach registry %s: %s", e.host, oneLine(e.err.Error(), 300))
}
func (e *reachError) Unwrap() error        { return e.err }
func (e *reachError) Is(target error) bool { return target == ErrUnavailable }
