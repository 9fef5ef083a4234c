"""Runs in a pod: people who search over connections that they keep, click, and count what they got.

    python3 searchers.py URL [USERS [TASTE]]      counts.json, acknowledged.txt in /tmp, anew every second

USERS share the connections (8, one each). TASTE is JSON: how probably one clicks, by the release that
answered, "" for all others; without it everybody always does.

A search that a dead server swallowed is asked once more, as clients do, and counted apart: a rolling change
must need none of that.
"""

import http.client
import json
import random
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

PEOPLE, PAUSE_S, TIMEOUT_S = 8, 0.2, 10.0
COUNTS = {"searches": 0, "again": 0, "failed": 0, "events": 0, "events_failed": 0}
ACKNOWLEDGED: list[str] = []
FAILURES: list[str] = []
LOCK = threading.Lock()


class Person:
    """One connection, as the standard library keeps it: it notices no close but one that it is told of."""

    def __init__(self, host: str, port: int, names: list[str], taste: dict[str, float]) -> None:
        self.names, self.taste, self.name = names, taste, ""
        self.connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)

    def ask(self, path: str, body: object) -> tuple[int, bytes]:
        self.connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
        answer = self.connection.getresponse()
        return answer.status, answer.read()

    def search(self) -> dict | None:
        """None: twice no answer."""
        for attempt in range(2):
            try:
                status, body = self.ask("/v1/search", {"query": "subject1", "user_id": self.name, "k": 3})
                if status == 200:
                    return json.loads(body)
                said = f"{status} {body[:200]!r}"
            except (OSError, http.client.HTTPException) as error:
                self.connection.close()
                said = repr(error)
            with LOCK:
                FAILURES.append(f"{datetime.now(UTC):%H:%M:%S.%f} {said}")
                COUNTS["again"] += attempt == 0
        return None

    def click(self, answer: dict) -> bool:
        """Whether the event was acknowledged."""
        one = {
            "search_id": answer["search_id"],
            "video_id": answer["results"][0]["video_id"],
            "type": "click",
        }
        try:
            return self.ask("/v1/events", [{**one, "ts": datetime.now(UTC).isoformat()}])[0] == 202
        except (OSError, http.client.HTTPException):
            self.connection.close()
            return False

    def live(self) -> None:
        while True:
            self.name = random.choice(self.names)
            answer = self.search()
            likes = answer is not None and random.random() < self.taste.get(
                answer["release"], self.taste.get("", 1.0)
            )
            clicked = likes and self.click(answer)
            with LOCK:
                COUNTS["searches"] += 1
                COUNTS["failed"] += answer is None
                COUNTS["events"] += clicked
                COUNTS["events_failed"] += likes and not clicked
                if answer is not None and clicked:
                    ACKNOWLEDGED.append(answer["search_id"])
            time.sleep(PAUSE_S)


def main() -> None:
    address = urlsplit(sys.argv[1])
    taste = json.loads(sys.argv[3]) if len(sys.argv) > 3 else {}
    names = [f"person-{number}" for number in range(int(sys.argv[2]) if len(sys.argv) > 2 else PEOPLE)]
    for number in range(PEOPLE):
        person = Person(address.hostname or "", address.port or 80, names[number::PEOPLE], taste)
        threading.Thread(target=person.live, daemon=True).start()
    while True:
        with LOCK:
            counts, acknowledged = json.dumps(COUNTS | {"last": FAILURES[-3:]}), "\n".join(ACKNOWLEDGED)
        for name, text in (("acknowledged.txt", acknowledged), ("counts.json", counts)):
            Path(f"/tmp/{name}.new").write_text(text)
            Path(f"/tmp/{name}.new").rename(f"/tmp/{name}")
        time.sleep(1)


if __name__ == "__main__":
    main()
