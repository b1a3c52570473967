using Lightway.Client;
using Lightway.Hosting;
using Lightway.Options;

var outcome = ClientOptions.Parse(args, Environment.GetEnvironmentVariable, File.ReadAllText);
return outcome.Kind == OutcomeKind.Reset
    ? ResetCommand.Run(Console.Out, Console.Error)
    : Entry.Run(
        outcome,
        "lightway-client",
        options => Logging.Create(LogFormat.Full, options.LogLevel),
        ClientHost.Run,
        ClientHost.Check
    );
