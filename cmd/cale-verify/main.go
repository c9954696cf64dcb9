// Command cale-verify opens the simple signing signatures of an image for caled, which starts it when a policy wants
// them: it takes a trust.SimpleRequest as JSON on standard input and gives a list of trust.Opened on standard output.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"

	"cale/image/simplesign"
	"cale/image/trust"
)

// maxRequest bounds the request, in bytes: it holds files of keys.
const maxRequest = 64 << 20

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	if err := run(ctx, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, in io.Reader, out io.Writer) error {
	var r trust.SimpleRequest
	if err := json.NewDecoder(io.LimitReader(in, maxRequest)).Decode(&r); err != nil {
		return fmt.Errorf("cale-verify is started by caled: %w", err)
	}
	list, err := simplesign.Open(ctx, r)
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(list)
}
