"""Every code of the venue's table has a class that says what to do."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market.binance import errors
from market.binance.error_codes import CODES, error_of, venue_error
from market.binance.errors import (
    Action,
    BinanceError,
    IpBanned,
    LocationRefused,
    OutcomeUnknown,
    Overloaded,
    RateLimited,
    RequestInvalid,
    VenueError,
    VenueUnavailable,
)

STOP = (-1002, -1016, -1020, -1022, -2014, -2015, -4109, -4120)
FIX = (
    *(-1010, -1013, -1014, -1102, -1103, -1104, -1105, -1106, -1111, -1115, -1116, -1117, -1120, -1121, -1122),
    *(-1125, -1127, -1130, -2011, -2013, -4001, -4002, -4003, -4004, -4005, -4013, -4014, -4023, -4015, -4028),
    *(-4061, -4062, -4137, -4138, -4168),
)
RETRY = (-1000, -1001, -1006, -1007, -1021, -5028)
BACK_OFF = (-1003, -1008, -1015)
DECIDE = (
    *(-2010, -2018, -2019, -2021, -2022, -2023, -2024, -2025, -2026, -2027, -2028, -4016, -4024, -4131, -4045),
    *(-4047, -4048, -4067, -4068, -4531, -4117, -4118, -4142, -4161, -4164, -4192, -4400, -4401, -4105),
    *(-5021, -5022, -5025, -5026, -5029, -5047),
)
DONE = (-4046, -4059, -4171, -5027)
EXPECTED = (
    dict.fromkeys(STOP, Action.STOP)
    | dict.fromkeys(FIX, Action.FIX)
    | dict.fromkeys(RETRY, Action.RETRY)
    | dict.fromkeys(BACK_OFF, Action.BACK_OFF)
    | dict.fromkeys(DECIDE, Action.DECIDE)
    | dict.fromkeys(DONE, Action.DONE)
    | {-4116: Action.UNKNOWN}
)


@pytest.mark.parametrize(("code", "action"), EXPECTED.items())
def test_every_code_says_what_the_caller_does(code: int, action: Action) -> None:
    error = venue_error(400, code, "the venue's words")
    assert error.action is action
    assert isinstance(error, VenueError)
    assert error.advice
    assert f"code {code}: the venue's words" in str(error)


def test_the_table_has_no_code_that_is_not_expected() -> None:
    assert set(CODES) == set(EXPECTED)


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (400, -1000, ""),
        (400, -1001, ""),
        (400, -1006, ""),
        (400, -1007, ""),
        (503, -1007, "Timeout waiting for response from backend server."),
        (503, 0, "Unknown error, please check your request or try again later."),
        (502, 0, "<html>"),
        (504, 0, ""),
        (500, 0, ""),
        (408, -1007, ""),
        (408, 0, ""),
        (500, 0, "Service Unavailable."),
        (504, 0, "Service Unavailable."),
        (400, -1001, "Internal error; unable to process your request. Please try again."),
        (500, -1001, "Internal error; unable to process your request. Please try again."),
        (503, -1006, "Internal error; unable to process your request. Please try again."),
        (503, -1007, "Service Unavailable."),
        (503, -1001, ""),
    ],
)
def test_an_order_that_may_have_been_executed_is_never_called_failed(status: int, code: int, message: str) -> None:
    error = venue_error(status, code, message, changes="order a-1")
    assert isinstance(error, OutcomeUnknown)
    assert error.action is Action.UNKNOWN
    assert not error.retry
    assert "order a-1" in str(error)
    read = venue_error(status, code, message)
    assert isinstance(read, VenueUnavailable)
    assert read.retry


@pytest.mark.parametrize(
    "message",
    ["Service Unavailable.", "Internal error; unable to process your request. Please try again."],
)
@pytest.mark.parametrize("code", [0, -1000, -1001])
def test_the_503s_that_did_nothing(code: int, message: str) -> None:
    error = venue_error(503, code, message, changes="order a-1")
    assert isinstance(error, VenueUnavailable)
    assert error.advice == "it was not done"


def test_overload_is_known_to_have_done_nothing() -> None:
    error = venue_error(503, -1008, "Request throttled by system-level protection.", changes="order a-1")
    assert isinstance(error, Overloaded)
    assert error.action is Action.BACK_OFF


def test_a_ban_says_until_when() -> None:
    text = "Way too many requests; IP(1.2.3.4) banned until 1767657661999. Please use the websocket"
    error = error_of(418, json.dumps({"code": -1003, "msg": text}).encode(), None)
    assert isinstance(error, IpBanned)
    assert error.until_ms == 1_767_657_661_999
    assert isinstance(venue_error(418, -1003, "no time"), IpBanned)
    assert venue_error(429, -1003, "", 3.0).retry_after_s == 3.0


def test_a_refused_location_names_regions_that_work() -> None:
    body = b'{"code":0,"msg":"Service unavailable from a restricted location"}'
    error = error_of(451, body, None, changes="order a-1")
    assert isinstance(error, LocationRefused)
    assert error.action is Action.STOP
    assert "restricted location" in str(error)
    serves, refuses = str(error).split("its terms of use")
    assert "Singapore" in serves
    for country in ("Canada", "Malaysia", "Netherlands", "United States"):
        assert country not in serves
        assert country in refuses


@settings(deadline=None)
@given(
    st.integers(300, 599),
    st.one_of(st.binary(max_size=60), st.integers(-6000, 0).map(lambda code: json.dumps({"code": code}).encode())),
    st.one_of(st.none(), st.text(max_size=4)),
    st.booleans(),
)
def test_any_answer_is_an_error_of_the_tree(status: int, body: bytes, after: str | None, changes: bool) -> None:
    error = error_of(status, body, after, changes="it" if changes else None)
    assert isinstance(error, BinanceError)
    assert error.action in Action
    if isinstance(error, OutcomeUnknown):
        assert changes
    if changes:
        assert not (error.retry and not isinstance(error, VenueUnavailable | RateLimited))


def test_the_tree_is_small_and_every_class_says_what_to_do() -> None:
    kinds = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, BinanceError)]
    assert len(kinds) < 32
    for kind in kinds:
        assert kind.__doc__
    assert isinstance(venue_error(400, -9999, "new"), RequestInvalid)
