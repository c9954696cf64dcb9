package engine

import (
	"context"
	"testing"
)

// BenchmarkRun is docker run --rm of a program that does nothing.
func BenchmarkRun(b *testing.B) {
	for _, mode := range []string{"none", "bridge"} {
		b.Run(mode, func(b *testing.B) {
			e := newBench(b)
			ctx := context.Background()
			for b.Loop() {
				id := e.create(Spec{Cmd: []string{"true"}, Network: Network{Mode: mode}, AutoRemove: true})
				gone, err := e.Wait(ctx, id, "removed")
				if err != nil {
					b.Fatal(err)
				}
				if err := e.Start(ctx, id, StartOptions{}); err != nil {
					b.Fatal(err)
				}
				<-gone
			}
		})
	}
}

// BenchmarkExec is docker exec of a program that does nothing.
func BenchmarkExec(b *testing.B) {
	e := newBench(b)
	s := sh("sleep 1000")
	id := e.create(s)
	if err := e.Start(context.Background(), id, StartOptions{}); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		e.exec(id, ExecSpec{Cmd: []string{"true"}})
	}
}
