package e2e

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"cale/test/stack"
)

// pythonSteps use Docker's client for Python as a program would. It ends by itself at the first that fails.
const pythonSteps = `
import docker, io, sys, tarfile
c = docker.DockerClient(base_url="unix://" + sys.argv[1], timeout=60)
image = sys.argv[2]
assert c.ping() and c.version()["ApiVersion"] and c.info()["OSType"] == "linux"
events = c.events(decode=True, filters={"type": "container"})
assert c.containers.run(image, ["echo", "hello"], remove=True) == b"hello\n"
assert next(events)["Action"] == "create"
events.close()
try:
    c.containers.run(image, ["sh", "-c", "echo bad >&2; exit 3"], remove=True)
    assert False
except docker.errors.ContainerError as e:
    assert e.exit_status == 3 and e.stderr == b"bad\n", e
v = c.volumes.create("pv", labels={"a": "b"})
n = c.networks.create("pn", driver="bridge")
k = c.containers.run(image, ["sh", "-c", "echo up; sleep 1000"], detach=True, name="py", network="pn", environment={"A": "1"}, mem_limit="64m",
    volumes={"pv": {"bind": "/v", "mode": "rw"}}, ports={"80/tcp": ("127.0.0.1", None)}, labels={"l": "1"}, init=True, ulimits=[docker.types.Ulimit(name="nofile", soft=100, hard=200)])
for line in k.logs(stream=True, follow=True):
    assert line == b"up\n"
    break
assert k.exec_run(["sh", "-c", "echo $A; ulimit -n"]).output == b"1\n100\n"
out = k.exec_run(["sh", "-c", "echo o; echo e >&2"], demux=True)
assert out.output == (b"o\n", b"e\n") and out.exit_code == 0
b = io.BytesIO()
with tarfile.open(fileobj=b, mode="w") as t:
    i = tarfile.TarInfo("f"); i.size = 2; t.addfile(i, io.BytesIO(b"hi"))
assert k.put_archive("/v", b.getvalue())
bits, stat = k.get_archive("/v/f")
assert stat["size"] == 2 and tarfile.open(fileobj=io.BytesIO(b"".join(bits))).extractfile("f").read() == b"hi"
assert k.stats(stream=False)["memory_stats"]["limit"] == 64 << 20
k.exec_run(["touch", "/made"]); assert k.top()["Processes"] and {"Path": "/made", "Kind": 1} in k.diff()
k.update(mem_limit="32m", memswap_limit="64m"); k.pause(); k.reload(); assert k.status == "paused"; k.unpause()
k.rename("py2"); k.reload(); assert k.name == "py2" and k.ports["80/tcp"]
assert [x.name for x in c.containers.list(filters={"label": "l=1"})] == ["py2"]
i = k.commit("made", "1", changes=["ENV X=y"])
assert c.images.get("made:1").id == i.id and c.api.inspect_image("made:1")["Config"]["Env"][-1] == "X=y"
k.stop(timeout=0); assert k.wait()["StatusCode"] in (137, 143)
built, log = c.images.build(fileobj=io.BytesIO(("FROM %s\nRUN echo built > /built\n" % image).encode()), tag="built:1", rm=True)
assert c.containers.run("built:1", ["cat", "/built"], remove=True) == b"built\n"
saved = b"".join(c.images.get("built:1").save(named=True))
c.images.remove("built:1"); assert c.images.load(saved)[0].tags == ["built:1"]
k.remove(v=True); n.remove(); v.remove()
try:
    c.containers.get("none"); assert False
except docker.errors.NotFound:
    pass
assert c.containers.prune() is not None and c.df()["Images"]
print("done")
`

// TestPythonClient: Docker's client for Python works unchanged.
func TestPythonClient(t *testing.T) {
	if err := exec.Command("python3", "-c", "import docker").Run(); err != nil {
		t.Skip("python3 has no module docker")
	}
	s := stack.New(t)
	s.Cale("pull", s.Busybox()).OK(t)
	if out := s.Do("", "python3", "-c", pythonSteps, filepath.Join(s.Run, "docker.sock"), s.Busybox()).OK(t); !strings.HasSuffix(out, "done\n") {
		t.Error(out)
	}
}
