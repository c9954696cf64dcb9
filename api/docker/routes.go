package docker

import (
	"net/http"
	"strings"
)

type handler func(*Server, http.ResponseWriter, *request) error

type route struct {
	method string
	// path is matched segment by segment. {x} is one segment; {name*} is one or more, as an image's name may have
	// slashes.
	path string
	do   handler
}

// routes is the whole API. HEAD is answered by GET's handler where HEAD is not named.
var routes = []route{
	{"GET", "/_ping", (*Server).ping},
	{"HEAD", "/_ping", (*Server).ping},
	{"GET", "/version", (*Server).version},
	{"GET", "/info", (*Server).info},
	{"GET", "/events", (*Server).events},
	{"GET", "/system/df", (*Server).diskUsage},
	{"POST", "/auth", (*Server).auth},

	{"GET", "/containers/json", (*Server).containerList},
	{"POST", "/containers/create", (*Server).containerCreate},
	{"POST", "/containers/prune", (*Server).containerPrune},
	{"GET", "/containers/{name*}/json", (*Server).containerInspect},
	{"POST", "/containers/{name*}/start", (*Server).containerStart},
	{"POST", "/containers/{name*}/stop", (*Server).containerStop},
	{"POST", "/containers/{name*}/restart", (*Server).containerRestart},
	{"POST", "/containers/{name*}/kill", (*Server).containerKill},
	{"POST", "/containers/{name*}/pause", (*Server).containerPause},
	{"POST", "/containers/{name*}/unpause", (*Server).containerUnpause},
	{"POST", "/containers/{name*}/rename", (*Server).containerRename},
	{"POST", "/containers/{name*}/update", (*Server).containerUpdate},
	{"POST", "/containers/{name*}/wait", (*Server).containerWait},
	{"POST", "/containers/{name*}/resize", (*Server).containerResize},
	{"POST", "/containers/{name*}/attach", (*Server).containerAttach},
	{"GET", "/containers/{name*}/attach/ws", (*Server).attachWebSocket},
	{"POST", "/containers/{name*}/exec", (*Server).execCreate},
	{"GET", "/containers/{name*}/logs", (*Server).containerLogs},
	{"GET", "/containers/{name*}/top", (*Server).containerTop},
	{"GET", "/containers/{name*}/stats", (*Server).containerStats},
	{"GET", "/containers/{name*}/changes", (*Server).containerChanges},
	{"GET", "/containers/{name*}/export", (*Server).containerExport},
	{"HEAD", "/containers/{name*}/archive", (*Server).archiveStat},
	{"GET", "/containers/{name*}/archive", (*Server).archiveGet},
	{"PUT", "/containers/{name*}/archive", (*Server).archivePut},
	{"GET", "/containers/{name*}/checkpoints", (*Server).checkpointList},
	{"POST", "/containers/{name*}/checkpoints", (*Server).checkpointCreate},
	{"DELETE", "/containers/{name*}/checkpoints/{checkpoint}", (*Server).checkpointRemove},
	{"DELETE", "/containers/{name*}", (*Server).containerRemove},
	{"POST", "/exec/{name}/start", (*Server).execStart},
	{"POST", "/exec/{name}/resize", (*Server).execResize},
	{"GET", "/exec/{name}/json", (*Server).execInspect},

	{"GET", "/images/json", (*Server).imageList},
	{"POST", "/images/create", (*Server).imageCreate},
	{"GET", "/images/search", absent("search of a registry")},
	{"GET", "/images/get", (*Server).imageSave},
	{"POST", "/images/load", (*Server).imageLoad},
	{"POST", "/images/prune", (*Server).imagePrune},
	{"GET", "/images/{name*}/get", (*Server).imageSave},
	{"GET", "/images/{name*}/json", (*Server).imageInspect},
	{"GET", "/images/{name*}/history", (*Server).imageHistory},
	{"GET", "/images/{name*}/attestations", (*Server).imageAttestations},
	{"POST", "/images/{name*}/push", (*Server).imagePush},
	{"POST", "/images/{name*}/tag", (*Server).imageTag},
	{"DELETE", "/images/{name*}", (*Server).imageRemove},
	{"GET", "/distribution/{name*}/json", (*Server).distribution},
	{"POST", "/commit", (*Server).commit},
	{"POST", "/build", buildCall("/build")},
	{"POST", "/build/prune", (*Server).buildPrune},
	{"POST", "/build/cancel", buildCall("/build/cancel")},
	{"POST", "/session", buildUpgrade("/session")},
	{"POST", "/grpc", buildUpgrade("/grpc")},

	{"GET", "/volumes", (*Server).volumeList},
	{"POST", "/volumes/create", (*Server).volumeCreate},
	{"POST", "/volumes/prune", (*Server).volumePrune},
	{"GET", "/volumes/{name}", (*Server).volumeInspect},
	{"DELETE", "/volumes/{name}", (*Server).volumeRemove},

	{"GET", "/networks", (*Server).networkList},
	{"POST", "/networks/create", (*Server).networkCreate},
	{"POST", "/networks/prune", (*Server).networkPrune},
	{"GET", "/networks/{name}", (*Server).networkInspect},
	{"POST", "/networks/{name}/connect", (*Server).networkConnect},
	{"POST", "/networks/{name}/disconnect", (*Server).networkDisconnect},
	{"DELETE", "/networks/{name}", (*Server).networkRemove},

	{"GET", "/plugins", (*Server).pluginList},
	{"GET", "/plugins/privileges", absent("the installation of Docker's managed plug-ins")},
	{"POST", "/plugins/pull", (*Server).pluginPull},
	{"POST", "/plugins/create", absent("the installation of Docker's managed plug-ins")},
	{"GET", "/plugins/{name*}/json", (*Server).noPlugin},
	{"POST", "/plugins/{name*}/enable", (*Server).noPlugin},
	{"POST", "/plugins/{name*}/disable", (*Server).noPlugin},
	{"POST", "/plugins/{name*}/push", (*Server).noPlugin},
	{"POST", "/plugins/{name*}/upgrade", (*Server).pluginSet},
	{"POST", "/plugins/{name*}/set", (*Server).pluginSet},
	{"DELETE", "/plugins/{name*}", (*Server).noPlugin},
	{"GET", "/swarm", (*Server).swarm},
	{"GET", "/nodes", (*Server).swarm},
	{"GET", "/services", (*Server).swarm},
	{"GET", "/tasks", (*Server).swarm},
	{"GET", "/secrets", (*Server).swarm},
	{"GET", "/configs", (*Server).swarm},
	{"POST", "/swarm/init", (*Server).swarm},
	{"POST", "/swarm/join", (*Server).swarm},

	{"GET", "/cale/container/{name*}/explain", (*Server).containerExplain},
	{"POST", "/cale/container/{name*}/alter", (*Server).containerAlter},
	{"POST", "/cale/volume/{name}/snapshot", (*Server).volumeSnapshot},
	{"GET", "/cale/volume/{name}/export", (*Server).volumeExport},
	{"POST", "/cale/volume/{name}/import", (*Server).volumeImport},
	{"GET", "/cale/image/{name*}/why", (*Server).imageWhy},
	{"POST", "/cale/image/{name*}/verify", (*Server).imageVerify},
	{"POST", "/cale/image/{name*}/sign", (*Server).imageSign},
	{"GET", "/cale/working/{name}", (*Server).workingConfig},
	{"POST", "/cale/working/{name}", (*Server).setWorkingConfig},
	{"POST", "/cale/working/{name}/process", (*Server).setProcess},
	{"GET", "/cale/build/attach", (*Server).buildAttach},
	{"GET", "/cale/build/held", (*Server).buildHeld},
	{"POST", "/cale/build/hold", (*Server).buildHold},
	{"POST", "/cale/build/release", (*Server).buildRelease},
	{"POST", "/cale/build/added", (*Server).buildAdded},
	{"POST", "/cale/build/restore", (*Server).buildRestore},
	{"POST", "/cale/build/judge", (*Server).buildJudge},
	{"GET", "/cale/build/names", (*Server).buildNames},
	{"POST", "/cale/build/name", (*Server).buildName},
	{"GET", "/cale/manifest/{name*}", (*Server).manifestInspect},
	{"POST", "/cale/manifest/{name*}/annotate", (*Server).manifestAnnotate},
	{"POST", "/cale/manifest/{name*}", (*Server).manifestCreate},
	{"GET", "/cale/trust", (*Server).trustShow},
	{"POST", "/cale/trust", (*Server).trustSet},
	{"POST", "/cale/system/check", (*Server).systemCheck},
	{"GET", "/cale/registry", (*Server).registryList},
	{"POST", "/cale/registry", (*Server).registryListen},
	{"DELETE", "/cale/registry", (*Server).registryStop},
}

// find looks a request up. known says that the path exists under another method.
func find(method, path string) (r *route, vars map[string]string, known bool) {
	segments := strings.Split(strings.Trim(path, "/"), "/")
	for i := range routes {
		v, ok := match(routes[i].path, segments)
		if !ok {
			continue
		}
		if routes[i].method == method {
			return &routes[i], v, true
		}
		known = true
	}
	return nil, nil, known
}

func match(pattern string, segments []string) (map[string]string, bool) {
	parts := strings.Split(pattern[1:], "/")
	vars := map[string]string{}
	for i, part := range parts {
		if strings.HasSuffix(part, "*}") {
			tail := len(parts) - i - 1
			if len(segments) < tail+1 || segments[0] == "" {
				return nil, false
			}
			vars[part[1:len(part)-2]] = strings.Join(segments[:len(segments)-tail], "/")
			segments = segments[len(segments)-tail:]
			continue
		}
		if len(segments) == 0 {
			return nil, false
		}
		if part[0] == '{' {
			if segments[0] == "" {
				return nil, false
			}
			vars[part[1:len(part)-1]] = segments[0]
		} else if part != segments[0] {
			return nil, false
		}
		segments = segments[1:]
	}
	return vars, len(segments) == 0
}
