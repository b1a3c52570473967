using Lightway.Hosting;
using Lightway.Options;
using Lightway.Server;
using Lightway.Server.Setup;

var outcome = Parse();
return outcome.Kind == OutcomeKind.Init
    ? Init.Run(outcome.Init, Console.Out, Console.Error)
    : Entry.Run(
        outcome,
        "lightway-server",
        options => Logging.Create(options.LogFormat, options.LogLevel),
        (options, log) => ServerHost.Run(options, Parse, log)
    );

ParseOutcome<ServerOptions> Parse() => ServerOptions.Parse(args, Environment.GetEnvironmentVariable, File.ReadAllText);
