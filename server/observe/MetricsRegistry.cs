using System.Globalization;
using System.Reflection;
using Lightway.Server.Accounting;
using Lightway.Tunnel.Kernel;
using Lightway.Tunnel.Metrics;
using Prometheus;
using Counter = Lightway.Tunnel.Metrics.Counter;
using Counters = Lightway.Tunnel.Metrics.Counters;
using Histogram = Lightway.Tunnel.Metrics.Histogram;

namespace Lightway.Server.Observe;

/// <summary>
/// All metrics in the text format of Prometheus. Their values are read when somebody asks for them. Counters have the names of
/// the reference server, or of ours, with "_total" behind it, as the format wants it. Any thread.
/// </summary>
public sealed class MetricsRegistry
{
    private static readonly Counters s_none = new();
    private readonly Lock _gate = new(); // two may ask at the same time
    private readonly CollectorRegistry _registry = Metrics.NewCustomRegistry();
    private readonly MetricFactory _factory;
    private readonly ServerView _view;
    private readonly List<Action> _updates = [];
    private readonly Dictionary<string, Prometheus.Counter> _counted = [];

    public MetricsRegistry(ServerView view)
    {
        _view = view;
        _factory = Metrics.WithCustomRegistry(_registry);
        DotNetStats.Register(_registry);
        foreach (var counter in Enum.GetValues<Counter>().Where(counter => !IsLabelled(counter)))
        {
            Count(Counters.NameOf(counter), CounterHelp.Of(counter), () => view[counter]);
        }
        AddLabelled();
        AddSegmenter();
        AddReference();
        AddTotals();
        AddGauges();
        AddHistograms();
        AddWorkers();
        _registry.AddBeforeCollectCallback(Update);
    }

    /// <summary>Content type of <see cref="WriteAsync"/>.</summary>
    public const string ContentType = "text/plain; version=0.0.4; charset=utf-8";

    public Task WriteAsync(Stream output, CancellationToken cancel) =>
        _registry.CollectAndExportAsTextAsync(output, cancel);

    private void Update()
    {
        lock (_gate)
        {
            _updates.ForEach(update => update());
        }
    }

    /// <summary>The reference server has labels on these.</summary>
    private static bool IsLabelled(Counter counter) =>
        counter
            is Counter.ConnCreated
                or Counter.ConnLinkUp
                or Counter.ConnOnline
                or Counter.ConnTlsError
                or Counter.UdpBadPacketVersion;

    private void AddLabelled()
    {
        string[] security = ["cipher", "curve", "tls_protocol_version"];
        Dictionary<string, Prometheus.Counter> families = new()
        {
            ["conn_created"] = Family("conn_created", CounterHelp.Of(Counter.ConnCreated), "lightway_protocol_version"),
            ["conn_link_up"] = Family("conn_link_up", CounterHelp.Of(Counter.ConnLinkUp), security),
            ["conn_online"] = Family("conn_online", CounterHelp.Of(Counter.ConnOnline), security),
            ["conn_tls_error"] = Family("conn_tls_error", CounterHelp.Of(Counter.ConnTlsError), "fatal"),
            ["conn_unknown_error"] = Family(
                "conn_unknown_error",
                "Connections ended by an error of the protocol.",
                "fatal"
            ),
        };
        var fatal = families["conn_tls_error"].WithLabels("true");
        var others = families["conn_tls_error"].WithLabels("false");
        families["conn_unknown_error"].WithLabels("true");
        families["conn_unknown_error"].WithLabels("false");
        _updates.Add(() =>
        {
            foreach (var group in _view.Books.SelectMany(book => book.Counts.All).GroupBy(pair => pair.Key))
            {
                var family = families[group.Key.Name];
                family.WithLabels(group.Key.Values(family.LabelNames.Length)).IncTo(group.Sum(pair => pair.Value));
            }
            others.IncTo(Math.Max(0, _view[Counter.ConnTlsError] - fatal.Value));
        });
        var version = Counter.UdpBadPacketVersion;
        var unsupported = Family(Counters.NameOf(version), CounterHelp.Of(version), "lightway_protocol_version")
            .WithLabels("unsupported");
        _updates.Add(() => unsupported.IncTo(_view[version]));
    }

    private void AddSegmenter()
    {
        const string help = "Drops: superpackets that the segmenter refused.";
        foreach (var reason in SegmenterReason.All)
        {
            var counter =
                reason.Label.Length == 0
                    ? Family(reason.Name, help)
                    : (Prometheus.ICounter)Family(reason.Name, help, "reason").WithLabels(reason.Label);
            _updates.Add(() => counter.IncTo(_view.Counters.Sum(counters => counters[reason.Reason])));
        }
    }

    private void AddTotals()
    {
        var drops = Family("drops", "Everything that arrived and went nowhere, by reason.", "reason");
        _updates.Add(() =>
        {
            foreach (var (reason, count) in _view.Drops)
            {
                drops.WithLabels(reason).IncTo(count);
            }
        });
        var totals = Family("syscalls", "System calls of both data paths.");
        var sent = Family("syscalls_inside_to_outside", "System calls of the path from the TUN to the clients.");
        _updates.Add(() =>
        {
            var sums = Counters.Sum(_view.Counters).ToDictionary();
            totals.IncTo(sums["syscalls_total"]);
            sent.IncTo(sums["syscalls_inside_to_outside"]);
        });
        Count("sessions_lifetime", "Sessions since start.", () => _view[Counter.ConnOnline]);
    }

    /// <summary>Metrics of the reference server that have another name here, or whose cause does not exist here.</summary>
    private void AddReference()
    {
        foreach (var (name, help, value) in ReferenceNames.Of(_view))
        {
            Count(name, help, value);
        }
        foreach (var entry in ReferenceNames.Labelled(_view))
        {
            var counter = Family(entry.Name, entry.Help, entry.Label).WithLabels(entry.Value);
            _updates.Add(() => counter.IncTo(entry.Read()));
        }
    }

    private void AddGauges()
    {
        Show("sessions_current_online", "Clients that are logged in.", () => _view.Online);
        Show("connections_current", "Connections, those without a login included.", () => _view.Connections);
        Show("sessions_pending_id_rotations", "Sessions with a new id on the way.", () => _view.Rotations);
        Show("sessions_encoding_enabled", "Sessions whose packets are encoded.", () => _view.Uses.Encoding);
        for (var i = 0; i < SessionUses.Minutes.Length; i++)
        {
            var window = i;
            var minutes = SessionUses.Minutes[i];
            Show(
                $"sessions_active_{minutes}m",
                $"Sessions from which a packet came within {minutes} minutes, as of the latest report.",
                () => _view.Uses.Active[window]
            );
            Show(
                $"sessions_standby_{minutes}m",
                $"Sessions from which only keepalives came within {minutes} minutes, as of the latest report.",
                () => _view.Uses.Standby[window]
            );
        }
        Show("assigned_internal_ips", "Inside addresses in use.", () => _view.AddressesAssigned);
        Show("internal_ips_capacity", "Inside addresses in all.", () => _view.AddressesInAll);
        Show("ready", "1 while new clients are welcome, as /readyz says.", () => _view.State.IsReady ? 1 : 0);
        Show("draining", "1 while the server is being drained.", () => _view.State.IsDraining ? 1 : 0);
        _factory
            .CreateGauge("lightway_build_info", "Always 1; the version is the label.", "version")
            .WithLabels(VersionText)
            .Set(1);
    }

    private void AddHistograms()
    {
        Observe(
            "udp_send_batch_size",
            "Datagrams per system call of the path to the clients.",
            1,
            s_none.DatagramsPerSend,
            () => _view.Counters.Select(counters => counters.DatagramsPerSend)
        );
        Observe(
            "udp_run_segments",
            "Datagrams per run: segments that the kernel cuts from one buffer (UDP_SEGMENT).",
            1,
            s_none.SegmentsPerRun,
            () => _view.Counters.Select(counters => counters.SegmentsPerRun)
        );
        Observe(
            "tun_recv_batch_size",
            "Packets per read from the TUN: the segments of a superpacket, or one.",
            1,
            s_none.PacketsPerRead,
            () => _view.Counters.Select(counters => counters.PacketsPerRead)
        );
        Observe(
            "to_link_up_time",
            "Seconds from a connection's first datagram to the end of its handshake.",
            1000,
            SessionBook.NewTimes(),
            () => _view.Books.Select(book => book.ToLinkUp)
        );
        Observe(
            "to_online_time",
            "Seconds from a connection's first datagram to its login.",
            1000,
            SessionBook.NewTimes(),
            () => _view.Books.Select(book => book.ToOnline)
        );
    }

    private void AddWorkers()
    {
        const string label = "worker";
        var waits = Family("worker_epoll_waits", "Waits for events, by worker.", label);
        var busy = Family("worker_busy_seconds", "Time on a processor, by worker.", label);
        var ready = Family(
            "worker_runqueue_seconds",
            "Time without a processor while there was work, by worker.",
            label
        );
        var received = Family("worker_datagrams_received", "Datagrams received, by worker.", label);
        var sent = Family("worker_datagrams_sent", "Datagrams sent, by worker.", label);
        var read = Family("worker_packets_read", "Packets and superpackets read from the TUN, by worker.", label);
        var blocked = Family("worker_send_blocked", "Waits for a full UDP socket, by worker.", label);
        var online = _factory.CreateGauge("worker_sessions", "Clients that are logged in, by worker.", label);
        var mtu = _factory.CreateGauge("tun_mtu_bytes", "MTU of the TUN device.");
        var offload = _factory.CreateGauge("offload_in_use", "1 while a part of the offload is in use.", label, "part");
        for (var i = 0; i < _view.Workers.Count; i++)
        {
            var number = i;
            var worker = _view.Workers[i];
            var counters = worker.Context.Counters;
            var name = i.ToString(CultureInfo.InvariantCulture);
            _updates.Add(() =>
            {
                var time = ThreadTime.Of(worker.Thread);
                busy.WithLabels(name).IncTo(time.Running);
                ready.WithLabels(name).IncTo(time.Waiting);
                waits.WithLabels(name).IncTo(counters[Counter.EpollWaits]);
                received.WithLabels(name).IncTo(counters[Counter.UdpDatagramsReceived]);
                sent.WithLabels(name).IncTo(counters[Counter.UdpDatagramsSent]);
                read.WithLabels(name).IncTo(counters[Counter.TunPacketsRead]);
                blocked.WithLabels(name).IncTo(counters[Counter.UdpSendBlocked]);
                online.WithLabels(name).Set(_view.OnlineOf(number));
                mtu.Set(worker.Context.InsideMtu);
                foreach (var (part, isOn) in worker.OffloadStates)
                {
                    offload.WithLabels(name, part).Set(isOn ? 1 : 0);
                }
            });
        }
    }

    private Prometheus.Counter Family(string name, string help, params string[] labels)
    {
        if (!_counted.TryGetValue(name, out var family))
        {
            _counted.Add(name, family = _factory.CreateCounter(name + "_total", help, labels));
        }
        return family;
    }

    /// <summary>A counter without labels; the first one of a name stays.</summary>
    private void Count(string name, string help, Func<long> read)
    {
        if (!_counted.ContainsKey(name))
        {
            var counter = Family(name, help);
            _updates.Add(() => counter.IncTo(read()));
        }
    }

    private void Show(string name, string help, Func<double> read)
    {
        var gauge = _factory.CreateGauge(name, help);
        _updates.Add(() => gauge.Set(read()));
    }

    /// <param name="unit">Divides the values and bounds of the sources.</param>
    /// <param name="like">Has the bounds of the sources.</param>
    private void Observe(string name, string help, double unit, Histogram like, Func<IEnumerable<Histogram>> sources)
    {
        var bounds = like.Bounds.Select(bound => bound / unit).ToArray();
        var target = _factory.CreateHistogram(name, help, new HistogramConfiguration { Buckets = bounds });
        var feed = new HistogramFeed(like.Bounds);
        _updates.Add(() => feed.Update([.. sources()], (value, count) => target.Observe(value / unit, count)));
    }

    private static string VersionText =>
        typeof(MetricsRegistry)
            .Assembly.GetCustomAttribute<AssemblyInformationalVersionAttribute>()
            ?.InformationalVersion
        ?? "unknown";
}
