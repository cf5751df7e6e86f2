package e2e

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"heddle/bench/lab"
)

// unpacked is where bench/install/debian.sh puts Docker's engine and busybox.
const unpacked = "../../.tools/docker"

// image is what the containers are made of.
const image = "heddle-test"

// engine is a Docker engine of the test's own, in the namespace of a world's
// host:
//
//	dockerd ── containerd ── shims ── containers
//
// Its files are in one directory, its mounts in a mount namespace that ends
// with it, and its processes in one control group, which tells whether one is
// left.
type engine struct {
	w       *world
	dir     string
	group   string // Below each hierarchy of control groups.
	dockerd *lab.Process
}

// useEngine makes the environment such that docker and swd find the engine
// that startEngine will start, and returns its directory. swd takes over the
// environment, so this comes first.
func useEngine(t *testing.T) (dir string) {
	t.Helper()
	tools, err := filepath.Abs(unpacked)
	if err == nil {
		// A name by which labs remove what a killed test has left.
		dir, err = os.MkdirTemp("", fmt.Sprintf("%s-%d-docker-", lab.Prefix, os.Getpid()))
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	// An engine that the machine has goes before the one that was unpacked.
	t.Setenv("PATH", strings.Join([]string{
		os.Getenv("PATH"), "/usr/sbin", "/sbin",
		filepath.Join(tools, "usr/bin"), filepath.Join(tools, "usr/sbin"), filepath.Join(tools, "bin"),
	}, ":"))
	t.Setenv("DOCKER_HOST", "unix://"+filepath.Join(dir, "docker.sock"))
	t.Setenv("DOCKER_CONFIG", filepath.Join(dir, "cli"))
	return dir
}

// startScript becomes dockerd, in a mount namespace of its own. dockerd and
// containerd write below /etc, /opt and /run too, wherever their data is.
const startScript = `
set -eu
dir=$1 group=$2
shift 2
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs "$dir/over"
for d in etc opt; do
	mkdir -p "$dir/over/$d" "$dir/over/$d.work"
	mount -t overlay -o "lowerdir=/$d,upperdir=$dir/over/$d,workdir=$dir/over/$d.work" overlay "/$d"
done
echo $$ >"$group/cgroup.procs"
exec "$@" 2>&1
`

// startEngine starts the engine whose directory useEngine has made, and makes
// the image. The engine ends with the test, which fails if something of it is
// left.
func (w *world) startEngine(dir string) *engine {
	w.Helper()
	w.NoError(endStaleGroups())
	e := &engine{w: w, dir: dir, group: fmt.Sprintf("%s-%d-docker", lab.Prefix, os.Getpid())}
	w.Cleanup(func() {
		if err := e.end(); err != nil {
			w.Errorf("ending the engine: %v", err)
		}
	})
	// One hierarchy is enough to hold the processes together.
	hierarchies := groups("")
	if len(hierarchies) == 0 {
		w.Fatal("dockerd needs control groups: mount them at /sys/fs/cgroup")
	}
	own := filepath.Join(hierarchies[0], e.group, "engine")
	w.NoError(os.MkdirAll(own, 0o755))
	w.NoError(os.Mkdir(filepath.Join(dir, "over"), 0o755))
	config := filepath.Join(dir, "daemon.json")
	w.writeFile(config, "{}")
	var err error
	e.dockerd, err = w.host.Start("unshare", "--mount", "sh", "-c", startScript, "dockerd", dir, own,
		"env", "LD_LIBRARY_PATH="+libraries(w.T),
		// Engines in a container leave the machine's AppArmor profiles alone.
		"container=heddle",
		"dockerd", "--config-file", config,
		"--host", os.Getenv("DOCKER_HOST"), "--pidfile", filepath.Join(dir, "dockerd.pid"),
		"--data-root", filepath.Join(dir, "data"), "--exec-root", filepath.Join(dir, "exec"),
		"--storage-driver", "vfs",
		"--exec-opt", "native.cgroupdriver=cgroupfs", "--cgroup-parent", "/"+e.group+"/containers",
		"--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false")
	w.NoError(err)
	ctx, cancel := context.WithTimeoutCause(w.Context(), 60*time.Second, errors.New("not ready after 60s"))
	defer cancel()
	if err := e.dockerd.WaitStdout(ctx, "API listen on"); err != nil {
		w.Fatalf("%v\n(make deps unpacks an engine below .tools)", err)
	}
	return e
}

// libraries lists the folders of the unpacked shared libraries.
func libraries(t *lab.T) string {
	t.Helper()
	var all []string
	for _, folder := range []string{"lib", "usr/lib"} {
		found, err := filepath.Glob(filepath.Join(unpacked, folder, "*-linux-gnu"))
		t.NoError(err)
		for _, f := range found {
			f, err := filepath.Abs(f)
			t.NoError(err)
			all = append(all, f)
		}
	}
	return strings.Join(all, ":")
}

// docker runs the command of that name, which must succeed, and returns its
// stdout.
func (e *engine) docker(args ...string) string {
	e.w.Helper()
	ctx, cancel := context.WithTimeout(e.w.Context(), 60*time.Second)
	defer cancel()
	out, err := e.w.Lab.Run(ctx, append([]string{"docker"}, args...)...)
	e.w.NoError(err)
	return out.Stdout
}

// inspect asks the engine for one thing about a container.
func (e *engine) inspect(container, format string) string {
	e.w.Helper()
	return strings.TrimSpace(e.docker("inspect", "--format", format, container))
}

// importImage makes the image: busybox, and files that its httpd serves.
func (e *engine) importImage(files map[string][]byte) {
	e.w.Helper()
	busybox, err := os.ReadFile(filepath.Join(unpacked, "bin/busybox"))
	if err != nil {
		e.w.Fatalf("%v (make deps unpacks it)", err)
	}
	var b bytes.Buffer
	archive := tar.NewWriter(&b)
	add := func(name string, mode int64, content []byte) {
		e.w.NoError(archive.WriteHeader(&tar.Header{Name: name, Mode: mode, Size: int64(len(content))}))
		_, err := archive.Write(content)
		e.w.NoError(err)
	}
	add("bin/busybox", 0o755, busybox)
	for name, content := range files {
		add("www/"+name, 0o644, content)
	}
	e.w.NoError(archive.Close())
	file := filepath.Join(e.dir, "image.tar")
	e.w.NoError(os.WriteFile(file, b.Bytes(), 0o600))
	e.docker("import", file, image)
}

// end removes the containers, ends dockerd and whatever is left under it, and
// says what was left.
func (e *engine) end() error {
	var errs []error
	if e.dockerd != nil {
		errs = append(errs, e.removeContainers(), e.stop())
	}
	errs = append(errs, awaitEmpty(e.group), endGroup(e.group))
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if bytes.Contains(mounts, []byte(e.dir)) {
		errs = append(errs, fmt.Errorf("leak: mounts below %s", e.dir))
	}
	return errors.Join(append(errs, err)...)
}

// stop ends dockerd, which gives its containerd up to 15 s.
func (e *engine) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	defer cancel()
	err := e.dockerd.Signal(syscall.SIGTERM)
	_, errWait := e.dockerd.Wait(ctx)
	return errors.Join(err, errWait)
}

func (e *engine) removeContainers() error {
	// The test's own context is over by now.
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	defer cancel()
	out, err := e.w.Lab.Run(ctx, "docker", "ps", "--all", "--quiet")
	if ids := strings.Fields(out.Stdout); err == nil && len(ids) > 0 {
		_, err = e.w.Lab.Run(ctx, append([]string{"docker", "rm", "--force"}, ids...)...)
	}
	return err
}

// groups lists the directories of a control group: one in the only hierarchy of
// version 2, or one in each of version 1.
func groups(name string) []string {
	var found []string
	for _, pattern := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
		procs, _ := filepath.Glob(filepath.Join(pattern, "cgroup.procs")) // The pattern is well formed.
		for _, p := range procs {
			dir := filepath.Join(filepath.Dir(p), name)
			if _, err := os.Stat(dir); err == nil {
				found = append(found, dir)
			}
		}
		if len(found) > 0 {
			break // Below a hierarchy of version 2 are groups, not hierarchies.
		}
	}
	return found
}

// processesOf lists the processes in a control group and below.
func processesOf(group string) (pids []int, err error) {
	for _, dir := range groups(group) {
		err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			if err != nil || filepath.Base(path) != "cgroup.procs" {
				return ignoreGone(err)
			}
			b, err := os.ReadFile(path)
			for _, field := range strings.Fields(string(b)) {
				pid, err := strconv.Atoi(field)
				if err != nil {
					return err
				}
				if !slices.Contains(pids, pid) {
					pids = append(pids, pid)
				}
			}
			return ignoreGone(err)
		})
		if err != nil {
			return nil, err
		}
	}
	return pids, nil
}

func ignoreGone(err error) error {
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENODEV) {
		return nil // The group was removed meanwhile.
	}
	return err
}

// awaitEmpty waits until no process is left in a control group: a container's
// shim ends by itself, after what it tells the engine.
func awaitEmpty(group string) error {
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		left, err := processesOf(group)
		switch {
		case err != nil || len(left) == 0:
			return err
		case time.Now().After(deadline):
			return fmt.Errorf("leak: processes %v", left)
		}
		<-tick.C
	}
}

// endGroup kills the processes in a control group and removes it, in patience at
// most.
func endGroup(group string) error {
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		pids, err := processesOf(group)
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL) // One that has ended is what is wanted.
		}
		err = errors.Join(err, removeGroup(group))
		if err == nil || time.Now().After(deadline) {
			return err
		}
		<-tick.C
	}
}

// removeGroup removes a control group without processes from all hierarchies,
// the groups in it first.
func removeGroup(group string) error {
	var errs []error
	for _, dir := range groups(group) {
		var all []string
		errs = append(errs, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				all = append(all, path)
			}
			return ignoreGone(err)
		}))
		for _, path := range slices.Backward(all) {
			errs = append(errs, ignoreGone(os.Remove(path)))
		}
	}
	return errors.Join(errs...)
}

// endStaleGroups ends the engines of tests that were killed.
func endStaleGroups() error {
	var errs []error
	for _, dir := range groups("") {
		found, _ := filepath.Glob(filepath.Join(dir, lab.Prefix+"-*-docker")) // The pattern is well formed.
		for _, f := range found {
			group := filepath.Base(f)
			pid, err := strconv.Atoi(strings.Split(group, "-")[1])
			if err != nil {
				continue
			}
			if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
				errs = append(errs, endGroup(group))
			}
		}
	}
	return errors.Join(errs...)
}
