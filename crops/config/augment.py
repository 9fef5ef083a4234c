"""Settings of `crops augment`."""

from pydantic import Field

from crops.config.base import Engine, StageConfig, engine, spark_master
from crops.config.reformulation import window_s


class AugmentConfig(StageConfig):
    """Which pairs are mined from the logs, and which days are held out."""

    window_s: int = window_s()
    learnt_windows: bool = False
    """Take the window of reformulations from the log's own gaps, for head, torso and tail queries apart:
    where a new sitting is likelier than the same one; window_s where the gaps do not tell. Source: ours; off.
    """
    min_play_s: float = Field(5.0, ge=0)
    """Reformulation and feed: a play this long counts as an interaction even without click or like, seconds.
    Source: ours, because players start by themselves and shorter plays are mostly swipes.
    """
    max_searches_per_user_day: int = Field(500, ge=1)
    """Users with more searches on a day are left out of reformulation and feed for that day, searches.
    Source: ours, because bots and shared accounts grow as the square and reformulate nothing.
    """
    bots_click: bool = True
    """Whether clicks of such users count all the same, for P0 and for the test set ct. Source: ours: a user
    with many searches clicks no worse, where nothing is known of bots.
    """
    learnt_feed_windows: bool = False
    """Take the half window of the feed from the log as well, by the same classes: up to where views of videos
    clicked for the query are twice as frequent as hours away; feed_half_window_s where there are too few.
    Source: ours; off.
    """
    evidence: bool = False
    """Also count, for each pair, how often it was shown, seen, clicked and played, and when last: what
    train.weigh reads. Source: ours; off.
    """
    feed_half_window_s: int = Field(1_800, ge=1, le=86_400)
    """Feed: views at most this long before or after the search, both ends included, seconds. Source: ours (30
    minutes), because the paper centres a window on the query without saying how both ends count.
    """
    feed_videos_per_user: int = Field(100, ge=1)
    """Feed: distinct videos per user and query, closest in time first, videos. Source: paper (100 per user);
    per query and distinct: ours.
    """
    feed_users_per_query: int = Field(1_000, ge=1)
    """Feed: users per query, sampled by a hash, users. Source: ours, because a head query stays affordable.
    """
    stage_videos_per_query: int = Field(200, ge=1)
    """Exposed, ranked, filtered: videos per query and stage, most frequent first, videos. Source: ours,
    because a batch uses a few per query and these tables are the largest.
    """
    test_days: int = Field(1, ge=1)
    """Last days held out for the test sets, days. Source: ours; the paper holds out days."""
    valid_days: int = Field(1, ge=1)
    """Last training days whose reformulations validate training, days. Source: ours."""
    examples: int = Field(5, ge=0)
    """Example pairs per perspective in augment.json, pairs. Source: ours."""
    threads: int | None = Field(None, ge=1)
    """Threads of the engine on this machine; null: one per usable core. Source: ours;
    changes speed only.
    """
    memory_gb: float | None = Field(None, gt=0)
    """Memory limit of the engine on this machine, GB; above it, it spills to disk; null: the engine's own
    (DuckDB: 80 % of RAM, Spark: 1 GB). Source: ours; changes speed only.
    """
    engine: Engine = engine()
    spark_master: str = spark_master()
