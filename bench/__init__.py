"""What the product costs, measured beside subprocess and the peers: `python -m bench` prints every table.

Whatever is compared takes turns in one run: round by round, in an order in which nobody always follows the same neighbour. So
a machine that slows down slows all of them, and the ratios hold where the milliseconds do not.

    measure.py       turns and statistics
    table.py         sections, tables and bars, as text that Markdown renders
    machine.py       what machine this is, and from /proc what its processes hold
    ours.py          the Config that is measured, and by which mechanism each limit of it is enforced
    peers.py         the other sandboxes: versions, flags, why one is not measured
    latency.py ...   a module per section: latency, throughput, memory, independence, inside, growth, startup
    caller.py        a process of a certain size that makes runs when told, for independence.py
    alive.py         many runs alive at once from one thread, and plans changed by hand
    overshoot.py     by how much a sampled memory limit is passed; a program of its own
"""
