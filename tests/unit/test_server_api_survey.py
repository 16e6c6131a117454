"""What the server API tells of connections and workers, beside where they are."""

from __future__ import annotations

from tests.unit.api_workers import call, connected, two_workers
from tests.unit.local_worker import ask


async def test_a_connection_says_which_application_it_is_of_as_its_sdk_reports():
    async with two_workers() as (one, two):
        _, told, _ = await connected(two, name="js", version="1.2.3")
        _, long, _ = await connected(two, name="n" * 65, version="v" * 65)
        _, silent, _ = await connected(two)
        found = (await call(one, "connections", user=""))["connections"]
        apps = {each: (about["app_name"], about["app_version"]) for each, about in found.items()}
        assert apps == {told: ("js", "1.2.3"), long: ("n" * 64, "v" * 64), silent: ("", "")}


async def test_info_tells_what_each_worker_has_counted_since_the_last_question():
    async with two_workers() as (one, two):
        caller, _, _ = await connected(two)
        first = {each["uid"]: each["metrics"] for each in (await call(one, "info"))["nodes"]}
        assert first[two.control.uid]["items"]["connections_opened"] == 1
        assert first[one.control.uid]["items"]["connections_opened"] == 0
        await ask(caller, "publish", channel="news", data=1)
        second = {each["uid"]: each["metrics"] for each in (await call(one, "info"))["nodes"]}
        items = second[two.control.uid]["items"]
        assert (items["connections_opened"], items["messages_in"], items["publications"]) == (
            0,
            1,
            1,
        )
        assert second[two.control.uid]["interval"] > 0
