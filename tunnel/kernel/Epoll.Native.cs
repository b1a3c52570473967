using Tmds.Linux;
using static Tmds.Linux.LibC;

namespace Lightway.Tunnel.Kernel;

/// <summary>What a file descriptor is ready for.</summary>
[Flags]
public enum Readiness
{
    None = 0,
    Read = 1,
    Write = 4,
}

/// <summary>Level-triggered epoll(7) with small integer tokens, and an eventfd that other threads ring to wake it.</summary>
public sealed unsafe class Epoll : IDisposable
{
    private const int MaxEvents = 16;
    private const int WakeToken = -1;
    private readonly int _epoll;
    private readonly int _wake;
    private readonly Slab _events = new(MaxEvents * sizeof(epoll_event));

    public Epoll()
    {
        _epoll = epoll_create1(EPOLL_CLOEXEC);
        _wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (_epoll < 0 || _wake < 0)
        {
            throw Linux.Failure("epoll_create1/eventfd");
        }
        Add(_wake, WakeToken);
    }

    /// <summary>Watches a descriptor for reading.</summary>
    public void Add(int fd, int token) => Control(EPOLL_CTL_ADD, fd, token, Readiness.Read);

    /// <summary>Changes what a descriptor is watched for; <see cref="Readiness.None"/> pauses it.</summary>
    public void Watch(int fd, int token, Readiness interest) => Control(EPOLL_CTL_MOD, fd, token, interest);

    /// <summary>Waits for events and fills <paramref name="ready"/> by token; wake-ups are consumed here.</summary>
    /// <param name="timeoutMs">Milliseconds; -1 waits for ever, 0 polls.</param>
    /// <param name="ready">Indexed by token; entries not ready become None.</param>
    public void Wait(int timeoutMs, Span<Readiness> ready)
    {
        ready.Clear();
        var events = (epoll_event*)_events.Pointer;
        var count = epoll_wait(_epoll, events, MaxEvents, timeoutMs);
        for (var i = 0; i < count; i++)
        {
            var token = events[i].data.fd;
            if (token == WakeToken)
            {
                ulong rings;
                _ = read(_wake, &rings, sizeof(ulong));
                continue;
            }
            // An error or a hang-up is reported as readable: the next read returns the errno, which is counted there.
            ready[token] = (events[i].events & EPOLLOUT) != 0 ? Readiness.Write : Readiness.None;
            if ((events[i].events & ~EPOLLOUT) != 0)
            {
                ready[token] |= Readiness.Read;
            }
        }
    }

    /// <summary>Ends the current or next <see cref="Wait"/>. Any thread.</summary>
    public void Wake()
    {
        ulong one = 1;
        _ = write(_wake, &one, sizeof(ulong));
    }

    public void Dispose()
    {
        close(_epoll);
        close(_wake);
        _events.Dispose();
    }

    private void Control(int operation, int fd, int token, Readiness interest)
    {
        epoll_event change = default;
        change.events = (int)interest; // EPOLLIN = 1 and EPOLLOUT = 4 are the values of Readiness
        change.data.fd = token;
        if (epoll_ctl(_epoll, operation, fd, &change) < 0)
        {
            throw Linux.Failure("epoll_ctl");
        }
    }
}
