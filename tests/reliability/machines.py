"""Machines of one machine: network namespaces with a link each, for scripts that try a cluster.

Machines are routed through the namespace of the script (10.77.N.1 here, 10.77.N.2 there): a link can be set down and its rate cut by
tc's tbf. Where neither root nor user namespaces are to be had, all machines are the loopback, and `Machines.links` says so.
"""
import os
import shutil
import subprocess
import sys

INSIDE = "PLUMB_MACHINES_INSIDE"


def enter_own_namespaces():
    """Begins this script again in namespaces of its own: of users (unless root), network, mounts and processes. With the script ends
    all that it started. Without such namespaces it goes on as it is; the reason is given back, else ""."""
    if os.environ.get(INSIDE):
        return os.environ.get(INSIDE + "_WHY", "")
    line = ["unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if os.geteuid() != 0:
        line[1:1] = ["--user", "--map-root-user"]
    missing = [program for program in ("unshare", "nsenter", "ip", "tc", "mount") if not shutil.which(program)]
    why = f"{', '.join(missing)} missing" if missing else ""
    if not why:
        tried = subprocess.run(line + ["sh", "-c", "mount -t tmpfs tmpfs /mnt && ip link add p0 type veth peer name p1"],
                               capture_output=True, text=True)
        why = tried.stderr.strip().splitlines()[-1] if tried.returncode else ""
    os.environ[INSIDE], os.environ[INSIDE + "_WHY"] = "1", why
    sys.stdout.flush()
    if not why:
        os.execvp(line[0], line + [sys.executable, *sys.argv])
    return why


def run(*words):
    subprocess.run(words, check=True)


def lone_network():
    """A network of this namespace alone, with an address beside the loopback's: without one, getaddrinfo finds nothing to listen on."""
    run("ip", "link", "add", "alone0", "type", "veth", "peer", "name", "alone1")
    run("ip", "addr", "add", "10.77.0.1/24", "dev", "alone0")
    for device in ("lo", "alone0", "alone1"):
        run("ip", "link", "set", device, "up")


class Machines:
    """Names to places to run programs in; `links` is False where these are all this one."""

    def __init__(self, names, links):
        self.names, self.links, self.holders = list(names), links, {}
        if not links:
            return
        run("ip", "link", "set", "lo", "up")
        with open("/proc/sys/net/ipv4/ip_forward", "w") as forward:
            forward.write("1")
        for number, name in enumerate(self.names, 1):
            holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
            self.holders[name] = holder.pid
            while os.readlink(f"/proc/{holder.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
                pass
            here, there = f"{name}-here", f"{name}-eth"
            run("ip", "link", "add", here, "type", "veth", "peer", "name", there)
            run("ip", "link", "set", there, "netns", str(holder.pid))
            run("ip", "addr", "add", f"10.77.{number}.1/24", "dev", here)
            run("ip", "link", "set", here, "up")
            self.run_in(name, "ip", "link", "set", "lo", "up")
            self.run_in(name, "ip", "addr", "add", f"10.77.{number}.2/24", "dev", there)
            self.run_in(name, "ip", "link", "set", there, "up")
            self.run_in(name, "ip", "route", "add", "default", "via", f"10.77.{number}.1")

    def address(self, name):
        return f"10.77.{self.names.index(name) + 1}.2" if self.links else "127.0.0.1"

    def line(self, name, words):
        """A command line that runs `words` on that machine, with the process id of the command itself."""
        if not self.links:
            return list(words)
        return ["nsenter", f"--net=/proc/{self.holders[name]}/ns/net", *words]

    def run_in(self, name, *words):
        run(*self.line(name, words))

    def link(self, name, up):
        run("ip", "link", "set", f"{name}-here", "up" if up else "down")

    def rate(self, name, kbit):
        """Both ways at most so many kbit/s; None: as fast as can be."""
        for prefix, device in ((), f"{name}-here"), (self.line(name, ()), f"{name}-eth"):
            change = ["add"] if kbit else ["del"]
            shape = ["tbf", "rate", f"{kbit}kbit", "burst", "16kb", "latency", "400ms"] if kbit else []
            run(*prefix, "tc", "qdisc", *change, "dev", device, "root", *shape)
