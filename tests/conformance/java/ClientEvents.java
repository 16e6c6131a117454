import io.github.centrifugal.centrifuge.Client;
import io.github.centrifugal.centrifuge.ConnectedEvent;
import io.github.centrifugal.centrifuge.ConnectingEvent;
import io.github.centrifugal.centrifuge.DisconnectedEvent;
import io.github.centrifugal.centrifuge.ErrorEvent;
import io.github.centrifugal.centrifuge.EventListener;
import io.github.centrifugal.centrifuge.MessageEvent;
import io.github.centrifugal.centrifuge.ServerPublicationEvent;
import io.github.centrifugal.centrifuge.ServerSubscribedEvent;
import io.github.centrifugal.centrifuge.ServerUnsubscribedEvent;
import java.util.LinkedHashMap;
import java.util.Map;

/** Reports what happens to a client and its server-side subscriptions. */
final class ClientEvents extends EventListener {
    private final Output.Teller teller;

    ClientEvents(Output.Teller teller) {
        this.teller = teller;
    }

    @Override
    public void onConnecting(Client client, ConnectingEvent e) {
        teller.tell("connecting", Map.of("code", e.getCode(), "reason", e.getReason()));
    }

    @Override
    public void onConnected(Client client, ConnectedEvent e) {
        teller.tell("connected", Map.of("id", e.getClient(), "data", Output.got(e.getData())));
    }

    @Override
    public void onDisconnected(Client client, DisconnectedEvent e) {
        teller.tell("disconnected", Map.of("code", e.getCode(), "reason", e.getReason()));
    }

    @Override
    public void onError(Client client, ErrorEvent e) {
        teller.tell("error", Output.failure(e.getError()));
    }

    @Override
    public void onMessage(Client client, MessageEvent e) {
        teller.tell("message", Map.of("data", Output.got(e.getData())));
    }

    @Override
    public void onSubscribed(Client client, ServerSubscribedEvent e) {
        Map<String, Object> facts = new LinkedHashMap<>();
        facts.put("channel", e.getChannel());
        facts.put("wasRecovering", e.wasRecovering());
        facts.put("recovered", e.getRecovered());
        teller.tell("server_subscribed", facts);
    }

    @Override
    public void onUnsubscribed(Client client, ServerUnsubscribedEvent e) {
        teller.tell("server_unsubscribed", Map.of("channel", e.getChannel()));
    }

    @Override
    public void onPublication(Client client, ServerPublicationEvent e) {
        Map<String, Object> facts = Map.of("channel", e.getChannel(), "data", Output.got(e.getData()));
        teller.tell("server_publication", facts);
    }
}
