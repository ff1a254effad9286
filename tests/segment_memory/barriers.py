"""The table of barriers: every site of protocol.h that asks for order, and what holds that it is needed."""

from __future__ import annotations

#: Each site of protocol.h that asks for order, and a scenario that goes wrong without it.
CAUGHT = {
    "append_row fence_release reserved [RESERVE]": "window go_round",
    "append_row store_release count [COUNT]": "window go_round",
    "begin_change fence_release forming_sequence": "forming form_some",
    "begin_change fence_release revision": "window revise_twice",
    "begin_change fence_release table_version": "lasting_neighbour move_neighbours",
    "bell_advance add_release bell [BELL]": "rung ring",
    "bell_value load_acquire bell [BELL]": "rung ring",
    "copy_forming fence_acquire [FORMING]": "forming form_some",
    "copy_forming load_acquire forming_sequence [FORMING]": "forming form_some",
    "copy_stamps fence_acquire [RESERVE]": "stamps go_round",
    "copy_stamps fence_acquire [REVISION]": "stamps go_round_and_start_over",
    "end_change store_release forming_sequence": "forming form_some",
    "end_change store_release revision": "window revise_twice",
    "end_change store_release table_version": "lasting_neighbour move_neighbours",
    "epoch_if_named fence_acquire [EPOCH]": "owner change_owners",
    "epoch_if_named load_acquire epoch [EPOCH]": "owner change_owners",
    "find_after fence_acquire [REVISION]": "found_after go_round_and_start_over",
    "find_series load_acquire hash [SLOT]": "lasting_neighbour move_neighbours",
    "find_series load_acquire table_version [TABLE]": "lasting_neighbour move_neighbours",
    "insert_series store_release epoch [EPOCH]": "found_and_glanced come_back",
    "insert_series store_release hash [SLOT]": "entry_seen first_insert",
    "lapped fence_acquire [RESERVE]": "one_row go_round",
    "take_snapshot fence_acquire [COUNT] [REVISION]": "snapshot start_over",
    "take_snapshot load_acquire revision [REVISION]": "snapshot start_over",
    "unchanged fence_acquire [EPOCH] [REVISION]": "window go_round_and_start_over",
}

#: Sites without which nothing goes wrong, for another does the same: that one, and what goes wrong without both.
#: The fence of remove_series() stands for the end of [EPOCH] where a reader of the code looks for it. Before the
#: record's next name is stored, remove_entry() passes the fence of begin_change(), which orders the new epoch as well.
DOUBLED = {
    "remove_series fence_release epoch [EPOCH]": (
        "begin_change fence_release table_version",
        "owner change_owners",
    ),
}
