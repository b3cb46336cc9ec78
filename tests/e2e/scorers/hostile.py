"""Scorers that do to their worker what no scorer should, on traces whose root says so (attribute `do`)."""

import asyncio
import ctypes
import gc
import os
import signal
import sys
import threading

from otel_scorer import AssessmentSource, Feedback, scorer

FOR_EVER = 1000


def nap():
    threading.Event().wait(FOR_EVER)


def fork():
    os.fork()  # and both return


def leave_a_child():
    if os.fork() == 0:
        nap()


def leave_a_child_and_exit():
    leave_a_child()
    os._exit(3)


def leave_a_program_and_exit():
    os.system(f"sleep {FOR_EVER} &")  # noqa: S605 - fixed text
    os._exit(3)


left = threading.Event()  # a thread has been left that waits
others = threading.Event()  # for others to run


def leave_a_thread(end):
    def wait():
        others.wait()
        end()

    threading.Thread(target=wait, daemon=True).start()
    left.set()


def exit_later():
    leave_a_thread(lambda: os._exit(3))


def crash_later():
    leave_a_thread(lambda: ctypes.string_at(0))


def close_descriptors():
    os.closerange(3, 100)


def leave_few_frames():
    sys.setrecursionlimit(80)


def recurse():
    sys.setrecursionlimit(1000)

    def deeper(depth):
        return deeper(depth + 1)

    return deeper(0)


def change_everything():
    gc.disable()
    os.chdir("/")
    os.environ.clear()
    sys.stdout = sys.stderr = None
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_DFL)
    for _ in range(20):
        threading.Thread(target=nap).start()


def smuggle():
    feedback = Feedback(value=True, source=AssessmentSource("CODE"))
    object.__setattr__(feedback.source, "source_id", Unprintable())
    return feedback


class Unprintable:  # noqa: PLW1641 - it is not meant to work
    def __str__(self):
        raise RuntimeError("cannot be shown")

    def __eq__(self, other):
        raise RuntimeError("cannot be compared")

    def __bool__(self):
        raise RuntimeError("neither true nor false")


DEEDS = {
    "fork": fork,
    "leave a child": leave_a_child,
    "leave a child and exit": leave_a_child_and_exit,
    "leave a program and exit": leave_a_program_and_exit,
    "leave a thread that exits": exit_later,
    "leave a thread that crashes": crash_later,
    "close descriptors": close_descriptors,
    "leave few frames": leave_few_frames,
    "recurse": recurse,
    "change everything": change_everything,
    "return what cannot be shown": Unprintable,
    "smuggle": smuggle,
    "return a generator": lambda: (Feedback(value=True) for _ in range(2)),
    "return a lot": lambda: [Feedback(value=["x" * 1000] * 50_000)],
}


def told(trace):
    return trace.root.get_attribute("do")


@scorer
def first(trace):
    return True


@scorer
def hostile(trace):
    deed = DEEDS.get(told(trace))
    found = None if deed is None else deed()
    return True if found is None else found


@scorer
def between(trace):
    if left.is_set():
        others.set()
        nap()
    return True


async def raise_in_a_task(error):
    async def fail():
        raise error

    task = asyncio.create_task(fail())
    await asyncio.sleep(0.01)
    return task.done()


@scorer(timeout=0.5)
async def hostile_coroutine(trace):
    deed = told(trace)
    while deed == "ignore cancellation":
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            continue
    if deed == "cancel all":
        for task in asyncio.all_tasks():
            task.cancel()
    if deed == "end the loop":
        asyncio.get_running_loop().call_soon(sys.exit)
    if deed == "leave a thread that exits, as a coroutine":
        await asyncio.to_thread(exit_later)
    if deed == "exit in a task":
        await raise_in_a_task(SystemExit(3))
    await asyncio.sleep(0.01)
    return True


@scorer
async def coroutine(trace):
    await asyncio.sleep(0)
    return True


@scorer
def last(trace):
    return True
