"""What makes a row bad: one table of rules, as SQL conditions that are true for a bad row. The first that holds is the reason."""

from dataclasses import dataclass

from crops.config.validate import ValidateConfig


@dataclass(frozen=True, slots=True)
class Rule:
    """`sql` is over the raw row and its helpers: `copy` (1 for the first row of a key), `day`, `known_search`, `known_video`."""

    reason: str
    sql: str


def _missing(*columns: str) -> list[Rule]:
    return [Rule(f"{column} is null", f"{column} IS NULL") for column in columns]


def rules(table: str, cfg: ValidateConfig) -> list[Rule]:
    """The rules of one table, in the order in which they are asked."""
    play = [
        Rule("play_s is negative or no number", "play_s < 0 OR isnan(play_s)"),
        Rule("play_s is too long", f"play_s > {cfg.max_play_s}"),
    ]
    twice = Rule("key stands twice", "copy > 1")
    by_table = {
        "searches": [
            *_missing("search_id", "user_id", "ts", "query"),
            Rule("query is empty", "trim(query) = ''"),
            Rule("query is too long", f"length(query) > {cfg.max_query_chars}"),
            Rule("ts is of another day than its partition", "day IS NOT NULL AND day <> strftime(ts, '%Y-%m-%d')"),
            Rule("arm is unknown", "arm NOT IN ('control', 'treatment')"),
            twice,
        ],
        "results": [
            *_missing("search_id", "video_id", "stage", "clicked", "liked"),
            Rule("stage is unknown", "stage NOT IN ('exposed', 'ranked', 'filtered')"),
            Rule("exposed without a position", "stage = 'exposed' AND position IS NULL"),
            Rule("position without being exposed", "stage <> 'exposed' AND position IS NOT NULL"),
            Rule("position is negative", "position < 0"),
            Rule("clicked or liked without being exposed", "stage <> 'exposed' AND (clicked OR liked)"),
            *play,
            Rule("search is not in searches", "NOT known_search"),
            Rule("video is not in videos", "NOT known_video"),
            twice,
        ],
        "feed": [
            *_missing("user_id", "video_id", "ts", "clicked", "liked"),
            *play,
            Rule("ts is of another day than its partition", "day IS NOT NULL AND day <> strftime(ts, '%Y-%m-%d')"),
            Rule("video is not in videos", "NOT known_video"),
            twice,
        ],
        "videos": [
            *_missing("video_id", "caption", "keywords", "cover_text", "related_queries"),
            Rule("duration_s is not positive", "duration_s <= 0 OR isnan(duration_s)"),
            twice,
        ],
    }
    return by_table[table]
