/* The writer's lock: a file that its holder unlinks at the end. segment/placement.py, WriterLock.
 *
 * Instance: 3 feeds at once, of which each may be killed at any step; a lock file is an inode, numbered as made.
 */
#define FEEDS 3
#define INODES (2 * FEEDS + 2)

hidden byte one_feed_writes_at_a_time;

byte path;          /* the inode that has the path; 0: none */
byte made;
byte holder[INODES + 1]; /* who holds the flock of an inode, its number + 1; 0: nobody */
byte writing;

inline may_die() { /* kill -9: the kernel closes the file, and so frees the lock */
    if
    :: goto dead
    :: skip
    fi
}

active [FEEDS] proctype feed() {
    byte inode;
    bool writes;

again:
    may_die();
    atomic { /* open, O_CREAT */
        if
        :: path == 0 -> made++; path = made
        :: else
        fi;
        inode = path
    }
    may_die();
    atomic { /* flock, LOCK_NB */
        if
        :: holder[inode] -> goto dead /* a live writer has it */
        :: else -> holder[inode] = _pid + 1
        fi
    }
    may_die();
#ifndef LOCK_FILE_UNCHECKED
    if /* _is_current */
    :: path != inode ->
        atomic { holder[inode] = 0; inode = 0 }
        goto again
    :: path == inode
    fi;
#endif
    atomic {
        writes = true;
        writing++;
        assert(writing == 1 || one_feed_writes_at_a_time)
    }
    may_die();
    /* release */
    atomic { writes = false; writing-- }
#ifdef UNLOCKED_BEFORE_UNLINK
    holder[inode] = 0;
#endif
    may_die();
    path = 0;
    may_die();

dead:
    atomic {
        if
        :: writes -> writes = false; writing--
        :: else
        fi;
        if
        :: holder[inode] == _pid + 1 -> holder[inode] = 0
        :: else
        fi;
        inode = 0
    }
}
