import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import io.github.centrifugal.centrifuge.Client;
import io.github.centrifugal.centrifuge.ConnectionTokenEvent;
import io.github.centrifugal.centrifuge.ConnectionTokenGetter;
import io.github.centrifugal.centrifuge.HistoryOptions;
import io.github.centrifugal.centrifuge.HistoryResult;
import io.github.centrifugal.centrifuge.Options;
import io.github.centrifugal.centrifuge.ResultCallback;
import io.github.centrifugal.centrifuge.StreamPosition;
import io.github.centrifugal.centrifuge.Subscription;
import io.github.centrifugal.centrifuge.SubscriptionOptions;
import io.github.centrifugal.centrifuge.SubscriptionTokenEvent;
import io.github.centrifugal.centrifuge.SubscriptionTokenGetter;
import io.github.centrifugal.centrifuge.TokenCallback;
import java.net.Proxy;
import java.security.GeneralSecurityException;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Function;
import java.util.stream.Collectors;

/** What the SDK is told to do, for several named clients. */
final class Verbs {
    private static final Map<String, Object> DONE = Map.of();
    private static final List<String> MISSING = List.of("delta", "tagsFilter", "states");
    private final Output output;
    private final Map<String, Client> clients = new HashMap<>();

    Verbs(Output output) {
        this.output = output;
    }

    /** Receives the result of a command or its error. */
    interface Answer {
        void give(Throwable error, Map<String, Object> result);
    }

    void obey(JsonObject asked, Answer answer) throws Exception {
        String verb = text(asked, "do");
        if (verb.equals("connect")) {
            connect(asked);
            answer.give(null, DONE);
            return;
        }
        Client client = clients.get(text(asked, "client"));
        if (client == null) {
            throw new IllegalStateException("no client has this name");
        }
        String channel = text(asked, "channel");
        switch (verb) {
            case "subscribe" -> subscribe(client, asked);
            case "unsubscribe" -> client.getSubscription(channel).unsubscribe();
            case "resubscribe" -> client.getSubscription(channel).subscribe();
            case "disconnect" -> client.disconnect();
            default -> {
                ask(verb, client, asked, answer);
                return;
            }
        }
        answer.give(null, DONE);
    }

    /** The commands that the server answers. */
    private static void ask(String verb, Client client, JsonObject asked, Answer answer) throws Exception {
        String channel = text(asked, "channel");
        switch (verb) {
            case "publish" -> client.publish(channel, data(asked), with(answer, result -> DONE));
            case "send" -> client.send(data(asked), error -> answer.give(error, DONE));
            case "rpc" -> client.rpc(
                    text(asked, "method"),
                    data(asked),
                    with(answer, result -> Map.of("data", Output.got(result.getData()))));
            case "history" -> client.history(channel, page(asked), with(answer, Verbs::stream));
            case "presence" -> client.presence(
                    channel,
                    with(answer, result -> Map.of(
                            "clients",
                            result.getClients().entrySet().stream()
                                    .collect(Collectors.toMap(
                                            Map.Entry::getKey, one -> one.getValue().getUser())))));
            case "presence_stats" -> client.presenceStats(
                    channel,
                    with(answer, result -> Map.of(
                            "clients", result.getNumClients(), "users", result.getNumUsers())));
            default -> throw new Output.Unsupported("the command " + verb);
        }
    }

    private static <T> ResultCallback<T> with(Answer answer, Function<T, Map<String, Object>> facts) {
        return (error, result) -> answer.give(error, error == null ? facts.apply(result) : null);
    }

    private static String text(JsonObject asked, String name) {
        JsonElement found = asked.get(name);
        return found == null ? "" : found.getAsString();
    }

    private static byte[] data(JsonObject asked) {
        return Output.sent(asked.get("data"));
    }

    private static JsonObject object(JsonObject asked, String name) {
        JsonElement found = asked.get(name);
        return found == null || found.isJsonNull() ? null : found.getAsJsonObject();
    }

    private static HistoryOptions page(JsonObject asked) {
        HistoryOptions.Builder how = new HistoryOptions.Builder();
        if (asked.has("limit")) {
            how.withLimit(asked.get("limit").getAsInt());
        }
        if (asked.has("reverse")) {
            how.withReverse(asked.get("reverse").getAsBoolean());
        }
        JsonObject since = object(asked, "since");
        if (since != null) {
            how.withSince(new StreamPosition(since.get("offset").getAsLong(), text(since, "epoch")));
        }
        return how.build();
    }

    private static Map<String, Object> stream(HistoryResult result) {
        List<Map<String, Object>> publications = result.getPublications().stream()
                .map(pub -> Map.<String, Object>of("data", Output.got(pub.getData()), "offset", pub.getOffset()))
                .toList();
        return Map.of(
                "offset", result.getOffset(), "epoch", result.getEpoch(), "publications", publications);
    }

    private void connect(JsonObject asked) {
        String name = text(asked, "client");
        Output.Teller teller = output.teller(name, null);
        Options options = new Options();
        // An HTTP proxy of the environment is not used on loopback.
        options.setProxy(Proxy.NO_PROXY);
        JsonObject wanted = object(asked, "options");
        if (wanted != null) {
            if (wanted.has("token")) {
                options.setToken(text(wanted, "token"));
            }
            if (wanted.has("data")) {
                options.setData(data(wanted));
            }
            if (wanted.has("maxServerPingDelay")) {
                options.setMaxServerPingDelay(wanted.get("maxServerPingDelay").getAsInt());
            }
        }
        JsonObject tokens = object(asked, "tokens");
        if (tokens != null) {
            options.setTokenGetter(connectionTokens(Tokens.of(tokens), teller));
        }
        Client client = new Client(text(asked, "url"), options, new ClientEvents(teller));
        clients.put(name, client);
        client.connect();
    }

    private void subscribe(Client client, JsonObject asked) throws Exception {
        String channel = text(asked, "channel");
        Output.Teller teller = output.teller(text(asked, "client"), channel);
        SubscriptionOptions options = new SubscriptionOptions();
        JsonObject wanted = object(asked, "options");
        if (wanted != null) {
            for (String missing : MISSING) {
                if (wanted.has(missing)) {
                    throw new Output.Unsupported("the option " + missing);
                }
            }
            options.setRecoverable(wanted.has("recoverable") && wanted.get("recoverable").getAsBoolean());
            options.setPositioned(wanted.has("positioned") && wanted.get("positioned").getAsBoolean());
            options.setJoinLeave(wanted.has("joinLeave") && wanted.get("joinLeave").getAsBoolean());
            if (wanted.has("data")) {
                options.setData(data(wanted));
            }
        }
        JsonObject tokens = object(asked, "tokens");
        if (tokens != null) {
            options.setTokenGetter(subscriptionTokens(Tokens.of(tokens), teller));
        }
        Subscription sub = client.newSubscription(channel, options, new SubscriptionEvents(teller));
        sub.subscribe();
    }

    private static ConnectionTokenGetter connectionTokens(Tokens tokens, Output.Teller teller) {
        return new ConnectionTokenGetter() {
            @Override
            public void getConnectionToken(ConnectionTokenEvent e, TokenCallback callback) {
                teller.tell("token", Map.of("channel", ""));
                sign(tokens, "", callback);
            }
        };
    }

    private static SubscriptionTokenGetter subscriptionTokens(Tokens tokens, Output.Teller teller) {
        return new SubscriptionTokenGetter() {
            @Override
            public void getSubscriptionToken(SubscriptionTokenEvent e, TokenCallback callback) {
                teller.tell("token", Map.of());
                sign(tokens, e.getChannel(), callback);
            }
        };
    }

    private static void sign(Tokens tokens, String channel, TokenCallback callback) {
        try {
            callback.Done(null, tokens.sign(channel));
        } catch (GeneralSecurityException error) {
            callback.Done(error, null);
        }
    }
}
