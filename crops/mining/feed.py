"""P2: what the users of a query watched in the recommendation feed around the time of their search."""

import ibis
import ibis.expr.types as ir


def users_of_query(searches: ir.Table, *, max_users: int) -> ir.Table:
    """in: searches(query, user_id); out: (query, user_id), distinct, at most `max_users` per query.

    Where there are more, those with the smallest MD5 of query and user are kept: the same on every engine and
    day, and independent of how active a user is.
    """
    users = searches.select("query", "user_id").distinct()
    sizes = users.group_by("query").agg(users=users.count())
    heads = sizes.filter(sizes.users > max_users)
    crowd = users.semi_join(heads, "query").select("query", "user_id")
    draw = (crowd.query + "\t" + crowd.user_id).hexdigest("md5")
    order = ibis.row_number().over(ibis.window(group_by="query", order_by=[draw, crowd.user_id]))
    sampled = crowd.mutate(rank=order).filter(lambda t: t.rank < max_users).select("query", "user_id")
    return users.anti_join(heads, "query").select("query", "user_id").union(sampled)


def feed_views(feed: ir.Table, *, min_play_s: float) -> ir.Table:
    """in: feed(user_id, video_id, ts, clicked, liked, play_s); out: (user_id, video_id, ts) of what was
    interacted with.
    """
    watched = (feed.play_s >= min_play_s).fill_null(False)
    return feed.filter(feed.clicked | feed.liked | watched).select("user_id", "video_id", "ts")


def around_searches(
    searches: ir.Table,
    users: ir.Table,
    views: ir.Table,
    *,
    half_window_s: int,
    max_videos: int,
    windows: ir.Table | None = None,
) -> ir.Table:
    """in: searches(user_id, ts, query), users(query, user_id), views(user_id, video_id, ts); windows:
    (query, window_s), shorter half windows for queries that have them.

    out: (query, video_id, event_id, ts): per user and query the `max_videos` distinct videos closest in time
    to one of the user's searches for it, |t_view - t_search| <= half_window_s, both ends included; ties by
    video_id. event_id is the user (one event per user, query and video), ts the first such view.
    """
    width_s = half_window_s + 2  # see reformulation.later_searches
    own = (views.ts.epoch_seconds() // width_s).cast("int64")
    viewed = views.select("user_id", "video_id", view_ts="ts", bucket=own)
    searched = searches.semi_join(users, ["query", "user_id"]).select("user_id", "query", "ts").distinct()
    bucket = (searched.ts.epoch_seconds() // width_s).cast("int64")
    spread = searched.mutate(bucket=ibis.array([bucket - 1, bucket, bucket + 1]).unnest())
    pairs = spread.join(viewed, ["user_id", "bucket"])
    span = ibis.interval(seconds=half_window_s)
    near = pairs.filter((pairs.view_ts <= pairs.ts + span) & (pairs.ts <= pairs.view_ts + span))
    # Without their zone (UTC): DuckDB goes through a calendar for times with one, and takes three times as
    # long.
    gap_us = near.view_ts.cast("timestamp").delta(near.ts.cast("timestamp"), unit="microsecond").abs()
    near = near.mutate(gap_us=gap_us)
    if windows is not None:
        own_window = near.left_join(windows, "query")
        near = own_window.filter(
            own_window.window_s.isnull() | (own_window.gap_us <= own_window.window_s * 1_000_000)
        )
    per_video = near.group_by("user_id", "query", "video_id").agg(
        gap_us=lambda t: t.gap_us.min(), ts=lambda t: t.view_ts.min()
    )
    order = ibis.window(group_by=["user_id", "query"], order_by=["gap_us", "video_id"])
    closest = per_video.mutate(rank=ibis.row_number().over(order)).filter(lambda t: t.rank < max_videos)
    return closest.select("query", "video_id", "ts", event_id="user_id")
