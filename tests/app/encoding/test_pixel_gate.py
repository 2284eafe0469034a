"""Images wait until there is room for their pixels."""

import threading

from app.encoding.pixel_gate import PixelGate


def test_images_within_the_total_do_not_wait() -> None:
    gate = PixelGate(100)
    with gate.reservation() as first, gate.reservation() as second:
        first(40)
        second(60)


def test_image_beyond_the_total_waits_for_another_to_leave() -> None:
    gate = PixelGate(100)
    entered, events = threading.Event(), []

    def late() -> None:
        with gate.reservation() as take:
            take(50)
            events.append("in")
            entered.set()

    with gate.reservation() as take:
        take(60)
        thread = threading.Thread(target=late)
        thread.start()
        assert not entered.wait(0.05)
        events.append("out")
    thread.join(timeout=5)
    assert events == ["out", "in"]


def test_image_larger_than_the_total_comes_in_alone() -> None:
    gate = PixelGate(100)
    with gate.reservation() as take:
        take(1000)


def test_failure_gives_the_pixels_back() -> None:
    gate = PixelGate(100)
    try:
        with gate.reservation() as take:
            take(100)
            raise ValueError
    except ValueError:
        pass
    with gate.reservation() as take:
        take(100)
