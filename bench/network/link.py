"""A link between two network namespaces: rate, delay and loss of packets, each direction alike.

link.py <namespace> <address> <namespace> <address> <rate Mbit/s> <one-way delay ms> <loss %> <queue ms>

Both namespaces have to be there. Says "ready", and goes on until it is killed. What netem does, for kernels without it: the TCP
stacks at both ends are the kernel's own. A packet that finds the queue full is lost, as in a router.
"""
import collections
import ctypes
import fcntl
import os
import random
import select
import struct
import subprocess
import sys
import time

CLONE_NEWNET = 0x40000000
TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
libc = ctypes.CDLL(None, use_errno=True)


def open_tun(namespace, address):
    """The device is made in that namespace; its descriptor works from anywhere."""
    with open("/var/run/netns/" + namespace) as entry:
        if libc.setns(entry.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns " + namespace)
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH", b"link", IFF_TUN | IFF_NO_PI))
    for words in (["addr", "add", address, "dev", "link"], ["link", "set", "dev", "link", "txqueuelen", "10000", "up"], ["link", "set", "lo", "up"]):
        subprocess.run(["ip", "-n", namespace, *words], check=True)
    return tun


class Direction:
    """What goes one way: a wire that takes packets one after another, then the delay."""

    def __init__(self, into, rate, delay, loss, queue):
        self.into, self.rate, self.delay, self.loss, self.queue = into, rate, delay, loss, queue
        self.free_at = 0.0
        self.flying = collections.deque()

    def take(self, packet, now):
        if self.loss > 0 and random.random() < self.loss:
            return
        if self.free_at - now > self.queue:
            return
        self.free_at = max(self.free_at, now) + len(packet) / self.rate
        self.flying.append((self.free_at + self.delay, packet))

    def land(self, now):
        while self.flying and self.flying[0][0] <= now:
            try:
                os.write(self.into, self.flying.popleft()[1])
            except BlockingIOError:
                pass


def main():
    first, first_address, second, second_address, mbit, delay_ms, loss, queue_ms = sys.argv[1:]
    tuns = [open_tun(first, first_address), open_tun(second, second_address)]
    of = (float(mbit) * 125000, float(delay_ms) / 1000, float(loss) / 100, float(queue_ms) / 1000)
    ways = {tuns[0]: Direction(tuns[1], *of), tuns[1]: Direction(tuns[0], *of)}
    print("ready", flush=True)
    while True:
        now = time.monotonic()
        due = [way.flying[0][0] for way in ways.values() if way.flying]
        wait = max(0.0, min(due) - now) if due else None
        for tun in select.select(tuns, [], [], wait)[0]:
            now = time.monotonic()
            for _ in range(64):
                try:
                    ways[tun].take(os.read(tun, 65536), now)
                except BlockingIOError:
                    break
        now = time.monotonic()
        for way in ways.values():
            way.land(now)


main()
