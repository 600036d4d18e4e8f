"""A trip of three bookings: if one fails, those before it are undone, newest first.

    perdure run examples/saga.py:trip traveller=Ada
    perdure run examples/saga.py:trip traveller=Ada car_sold_out=true     # exit code 1
    perdure history @last

What undoes a step is an activity too: it is recorded, retried, and survives a crash half way.
"""

from __future__ import annotations

from dataclasses import dataclass

from perdure import ApplicationError, Retry, activity, workflow


@dataclass
class Trip:
    traveller: str
    car_sold_out: bool = False


@activity.define
async def book(what: str, traveller: str) -> str:
    return f"{what} for {traveller}"


@activity.define
async def cancel_booking(booking: str) -> None:
    print(f"cancelled: {booking}", flush=True)


@activity.define(retry=Retry(max_attempts=3, interval="50ms"))
async def book_car(trip: Trip) -> str:
    if trip.car_sold_out:
        # Not retryable: trying again will not help, so the workflow hears of it at once.
        raise ApplicationError("no car is left", kind="SoldOut", retryable=False)
    return f"car for {trip.traveller}"


@workflow.define
async def trip(wish: Trip) -> list[str]:
    async with workflow.saga() as undo:
        flight = await book("flight", wish.traveller)
        undo.add(cancel_booking, flight)
        hotel = await book("hotel", wish.traveller)
        undo.add(cancel_booking, hotel)
        car = await book_car(wish)
    return [flight, hotel, car]
