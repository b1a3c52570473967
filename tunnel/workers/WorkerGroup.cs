using System.Runtime.ExceptionServices;
using Lightway.Tunnel.Kernel;
using Microsoft.Extensions.Logging;

namespace Lightway.Tunnel.Workers;

/// <summary>Runs workers, each on a thread of its own. When one ends, for whatever reason, all end.</summary>
public sealed partial class WorkerGroup(IReadOnlyList<Worker> workers, ILogger log) : IDisposable
{
    private Exception? _failure; // of the worker that ended first

    public IReadOnlyList<Worker> All => workers;

    /// <summary>
    /// Runs until <see cref="Stop"/>; the calling thread waits. No worker has it: the runtime gives each new thread, those
    /// of the pool among them, the processors of the process's first thread, which must not be bound to one.
    /// </summary>
    /// <param name="pin">Bind worker i to the i-th processor that this process may use.</param>
    /// <exception cref="Exception">What ended a worker.</exception>
    public void Run(bool pin)
    {
        var threads = workers.Select((worker, i) => new Thread(() => RunOne(worker, i, pin))).ToArray();
        foreach (var thread in threads)
        {
            thread.Start();
        }
        foreach (var thread in threads)
        {
            thread.Join();
        }
        if (_failure is { } failure)
        {
            ExceptionDispatchInfo.Throw(failure);
        }
    }

    /// <summary>Ends <see cref="Run"/>. Any thread.</summary>
    public void Stop()
    {
        foreach (var worker in workers)
        {
            worker.Stop();
        }
    }

    public void Dispose()
    {
        foreach (var worker in workers)
        {
            worker.Dispose();
        }
    }

    private void RunOne(Worker worker, int number, bool pin)
    {
        try
        {
            if (pin && !Affinity.TryPin(number))
            {
                LogNotPinned(log, number, Linux.Errno);
            }
            worker.Run();
        }
#pragma warning disable CA1031 // whatever it was, Run throws it again when the others have ended
        catch (Exception error)
#pragma warning restore CA1031
        {
            Interlocked.CompareExchange(ref _failure, error, null);
        }
        finally
        {
            Stop();
        }
    }

    [LoggerMessage(Level = LogLevel.Warning, Message = "worker {Number} can't be bound to a processor (errno {Errno})")]
    private static partial void LogNotPinned(ILogger log, int number, int errno);
}
