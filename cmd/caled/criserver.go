//go:build cri

package main

import (
	"log"
	"path/filepath"

	apicri "cale/api/cri"
	"cale/api/cri/nri"
	"cale/audit"
	"cale/engine"
)

func init() {
	serveCRI = func(e *engine.Engine, s settings, kept *audit.Log) (cri, error) {
		l, err := apicri.Listen(filepath.Join(s.run, "cri.sock"))
		if err != nil {
			return nil, err
		}
		o := apicri.Options{Version: version, Root: s.root, StreamAddress: s.criStream, AllowRestore: s.allowRestore, Audit: kept.Record}
		if s.nri {
			o.Plugins = func(n apicri.Node) (apicri.Plugins, error) {
				return nri.Open(n, nri.Options{Version: version, Socket: s.nriSocket, Plugins: s.nriPlugins, ConfigDir: s.nriConfig})
			}
		}
		srv, err := apicri.New(e, o)
		if err != nil {
			l.Close()
			return nil, err
		}
		go func() {
			if err := srv.Serve(l); err != nil {
				log.Printf("cri: %v", err)
			}
		}()
		log.Printf("caled listens on %s", l.Addr())
		return srv, nil
	}
}
