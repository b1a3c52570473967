using System.Collections.Concurrent;
using Lightway.Tunnel.Kernel;

namespace Lightway.Server.Auth;

/// <summary>
/// Threads that check logins and do nothing else, at a lower priority than those that carry packets. They end with the
/// process, or after <see cref="Dispose"/>. Safe from any thread.
/// </summary>
internal sealed class HashingThreads : IDisposable
{
    private const int Nice = 5; // a third of the weight of a thread at 0 (kernel/sched/core.c, sched_prio_to_weight)
    private readonly BlockingCollection<Action> _work = [];

    public HashingThreads(int count)
    {
        for (var i = 0; i < count; i++)
        {
            new Thread(Run) { IsBackground = true, Name = $"hashing {i}" }.Start();
        }
    }

    /// <summary>Runs <paramref name="action"/>, which must not throw, as soon as a thread is free.</summary>
    public void Run(Action action) => _work.Add(action);

    /// <summary>No action is taken any more; those that wait are still run, and then the threads end.</summary>
    public void Dispose() => _work.CompleteAdding();

    private void Run()
    {
        ThreadPriorities.Lower(Nice);
        foreach (var action in _work.GetConsumingEnumerable())
        {
            action();
        }
    }
}
