using Tmds.Linux;
using static Tmds.Linux.LibC;

namespace Lightway.Tunnel.Kernel;

/// <summary>What a file descriptor is ready for, or watched for.</summary>
[Flags]
public enum Readiness
{
    None = 0,
    Read = 1,
    Write = 4,
}

/// <summary>Is called when its file descriptor is ready.</summary>
public interface IReadyHandler
{
    /// <summary>Called from <see cref="Epoll.Wait"/>, on the thread that waits.</summary>
    void OnReady(Readiness readiness);
}

/// <summary>
/// Level-triggered epoll(7) that calls a handler for each ready descriptor, and an eventfd by which other threads wake it.
/// One thread waits; only <see cref="Wake"/> is for any thread.
/// </summary>
public sealed unsafe class Epoll : IDisposable
{
    private const int MaxEvents = 64;
    private const int WakeToken = -1;
    private readonly int _epoll;
    private readonly int _wake;
    private readonly List<IReadyHandler?> _handlers = []; // by token
    private readonly Stack<int> _free = []; // tokens
    private readonly List<int> _removed = []; // tokens that events of the latest wait may still name
    private readonly Slab _events = new(MaxEvents * sizeof(epoll_event));

    public Epoll()
    {
        _epoll = epoll_create1(EPOLL_CLOEXEC);
        _wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (_epoll < 0 || _wake < 0)
        {
            throw Linux.Failure(Linux.Errno, "epoll_create1/eventfd");
        }
        Control(EPOLL_CTL_ADD, _wake, WakeToken, Readiness.Read);
    }

    /// <summary>Watches a descriptor for reading, until <see cref="Remove"/>.</summary>
    /// <returns>The token by which <see cref="Watch"/> knows it.</returns>
    public int Add(int fd, IReadyHandler handler)
    {
        if (_free.TryPop(out var token))
        {
            _handlers[token] = handler;
        }
        else
        {
            token = _handlers.Count;
            _handlers.Add(handler);
        }
        Control(EPOLL_CTL_ADD, fd, token, Readiness.Read);
        return token;
    }

    /// <summary>Forgets a descriptor that is still open. Its handler is not called again.</summary>
    public void Remove(int fd, int token)
    {
        Control(EPOLL_CTL_DEL, fd, token, Readiness.None);
        _handlers[token] = null;
        _removed.Add(token);
    }

    /// <summary>Changes what a descriptor is watched for; <see cref="Readiness.None"/> pauses it.</summary>
    public void Watch(int fd, int token, Readiness interest) => Control(EPOLL_CTL_MOD, fd, token, interest);

    /// <summary>Waits for events and calls the handlers of the ready descriptors; wake-ups are consumed here.</summary>
    /// <param name="timeoutMs">Milliseconds; -1 waits for ever, 0 polls.</param>
    public void Wait(int timeoutMs)
    {
        foreach (var token in _removed)
        {
            _free.Push(token);
        }
        _removed.Clear();
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
            var readiness = (events[i].events & EPOLLOUT) != 0 ? Readiness.Write : Readiness.None;
            if ((events[i].events & ~EPOLLOUT) != 0)
            {
                readiness |= Readiness.Read;
            }
            _handlers[token]?.OnReady(readiness);
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
            throw Linux.Failure(Linux.Errno, "epoll_ctl");
        }
    }
}
