//! One small data set that agrees with itself: what is posted shows wherever it should.

use cloudbeds_auth_proxy::sandbox::{self, Sandbox, Settings};
use serde_json::{Value, json};

use crate::client::{Client, Http};

const FORM: &str = "application/x-www-form-urlencoded";
const NIGHTS: &str = "startDate=2026-12-24&endDate=2026-12-27";

struct Scene {
    _sandbox: Sandbox,
    client: Client,
    key: String,
}

impl Scene {
    async fn start() -> Self {
        let settings = Settings::demo();
        let key = settings.hotels[0].key.clone();
        let sandbox = sandbox::start(settings).await.unwrap();
        let client = Client::connect(&sandbox, Http::One).await;
        Self { _sandbox: sandbox, client, key }
    }

    async fn get(&mut self, target: &str) -> Value {
        self.client.get(&format!("/api/v1.3/{target}"), &self.key).await.json()
    }

    async fn send(&mut self, method: &str, operation: &str, form: &str) -> Value {
        let request = http::Request::builder().method(method).uri(format!("/api/v1.3/{operation}"));
        let request = request.header("authorization", format!("Bearer {}", self.key)).header("content-type", FORM);
        self.client.send(request.body(form.to_owned().into()).unwrap()).await.unwrap().json()
    }

    /// Books doubles for three nights over Christmas; the reservation's id.
    async fn book(&mut self, rooms: u32) -> String {
        let form = format!(
            "{NIGHTS}&guestFirstName=Eva&guestLastName=Neu&guestCountry=DE&guestZip=1&guestEmail=e%40example.com\
             &paymentMethod=cash&rooms[0][roomTypeID]=50001&rooms[0][quantity]={rooms}\
             &adults[0][roomTypeID]=50001&adults[0][quantity]={rooms}&children[0][roomTypeID]=50001&children[0][quantity]=0"
        );
        let booked = self.send("POST", "postReservation", &form).await;
        booked["reservationID"].as_str().unwrap().to_owned()
    }

    /// Free doubles over Christmas.
    async fn free(&mut self) -> Value {
        self.get(&format!("getRate?roomTypeID=50001&{NIGHTS}")).await["data"]["roomsAvailable"].clone()
    }

    async fn balance(&mut self, id: &str) -> (Value, Value) {
        let reservation = self.get(&format!("getReservation?reservationID={id}")).await;
        let balance = reservation["data"]["balance"].clone();
        let list = self.get("getReservations?lastName=Neu").await;
        assert_eq!(list["data"][0]["balance"], balance);
        (balance, reservation["data"]["balanceDetailed"].clone())
    }
}

#[tokio::test]
async fn a_booking_is_missing_from_what_is_free_and_shows_on_the_dashboard_and_among_the_guests() {
    let mut scene = Scene::start().await;
    assert_eq!(scene.free().await, 2);
    let id = scene.book(1).await;
    assert_eq!(scene.free().await, 1);
    let offers = scene.get(&format!("getAvailableRoomTypes?{NIGHTS}&rooms=2&adults=2&children=0")).await;
    assert_eq!((&offers["roomCount"], &offers["data"][0]["propertyRooms"]), (&json!(0), &json!([])));
    let dashboard =
        async |scene: &mut Scene, date: &str| scene.get(&format!("getDashboard?date={date}")).await["data"].clone();
    assert_eq!(
        dashboard(&mut scene, "2026-12-24").await,
        json!({"roomsOccupied": 1, "percentageOccupied": 25, "arrivals": 1, "departures": 0, "inHouse": 0})
    );
    assert_eq!(dashboard(&mut scene, "2026-12-25").await["inHouse"], 1);
    assert_eq!(dashboard(&mut scene, "2026-12-27").await["departures"], 1);
    let guests = scene.get("getGuestList?guestLastName=neu&includeGuestInfo=true").await;
    let guest = guests["data"].as_object().unwrap().values().next().unwrap().clone();
    assert_eq!((&guests["total"], &guest["reservationID"]), (&json!(1), &json!(id)));
    let guest_id = guest["guestID"].as_str().unwrap();
    let changed = scene.send("PUT", "putGuest", &format!("guestID={guest_id}&guestEmail=new%40example.com")).await;
    assert_eq!(changed, json!({"success": true}));
    assert_eq!(scene.get(&format!("getGuest?guestID={guest_id}")).await["data"]["email"], "new@example.com");

    let canceled = scene.send("PUT", "putReservation", &format!("reservationID={id}&status=canceled")).await;
    assert_eq!((&canceled["success"], &canceled["data"]["status"]), (&json!(true), &json!("canceled")));
    assert_eq!(scene.free().await, 2);
    assert_eq!(dashboard(&mut scene, "2026-12-24").await["arrivals"], 0);
}

#[tokio::test]
async fn what_is_bought_is_owed_and_what_is_paid_is_not_until_it_is_voided() {
    let mut scene = Scene::start().await;
    let id = scene.book(1).await;
    assert_eq!(scene.balance(&id).await.0, 360.0);
    let paid = scene.send("POST", "postPayment", &format!("reservationID={id}&type=cash&amount=100.25")).await;
    assert_eq!(scene.balance(&id).await.0, 259.75);
    let sold = scene.send("POST", "postItem", &format!("reservationID={id}&itemID=400001&itemQuantity=4")).await;
    assert_eq!(sold["data"]["remainingItemQuantity"], 96);
    assert_eq!(scene.get("getItem?itemID=400001").await["data"]["itemQuantity"], 96);
    let custom = "items[0][itemName]=Tea&items[0][itemPrice]=5.5&items[0][itemQuantity]=2";
    scene.send("POST", "postCustomItem", &format!("reservationID={id}&{custom}")).await;
    let (balance, detailed) = scene.balance(&id).await;
    assert_eq!(balance, 280.75);
    assert_eq!((&detailed["additionalItems"], &detailed["paid"]), (&json!(21.0), &json!(100.25)));
    let void = format!("reservationID={id}&paymentID={}", paid["paymentID"].as_str().unwrap());
    assert_eq!(scene.send("POST", "postVoidPayment", &void).await["success"], true);
    assert_eq!(scene.balance(&id).await.0, 381.0);
    assert_eq!(scene.send("POST", "postVoidPayment", &void).await["message"], "Payment not found");
    for (operation, form) in [
        ("postPayment", "type=cash&amount=-1".to_owned()),
        ("postPayment", "type=cash&amount=1e9".to_owned()),
        ("postPayment", "type=barter&amount=1".to_owned()),
        ("postItem", "itemID=400001&itemQuantity=97".to_owned()),
        ("postItem", "itemID=400001&itemQuantity=0".to_owned()),
        ("postCustomItem", "itemPaid=true".to_owned()),
    ] {
        let refused = scene.send("POST", operation, &format!("reservationID={id}&{form}")).await;
        assert_eq!(refused["success"], false, "{operation} {form}");
    }
    assert_eq!(scene.balance(&id).await.0, 381.0);
}

#[tokio::test]
async fn a_new_rate_counts_for_new_bookings_and_a_blocked_day_is_not_free() {
    let mut scene = Scene::start().await;
    let before = scene.book(1).await;
    let rate = "rates[0][rateID]=60001&rates[0][interval][0][startDate]=2026-12-25\
        &rates[0][interval][0][endDate]=2026-12-26&rates[0][interval][0][rate]=200";
    let job = scene.send("POST", "putRate", rate).await["jobReferenceID"].as_str().unwrap().to_owned();
    let plan = scene.get(&format!("getRatePlans?{NIGHTS}&detailedRates=1&roomTypeID=50001")).await["data"][0].clone();
    assert_eq!((&plan["roomRate"], &plan["roomRateDetailed"][1]["rateBase"]), (&json!(520.0), &json!(200.0)));
    let jobs = scene.get(&format!("getRateJobs?jobReferenceID={job}")).await;
    assert_eq!(
        (&jobs["data"][0]["status"], &jobs["data"][0]["updates"][0]["rate"]),
        (&json!("completed"), &json!(200.0))
    );
    let after = scene.book(1).await;
    let total = async |scene: &mut Scene, id: &str| {
        scene.get(&format!("getReservation?reservationID={id}")).await["data"]["total"].clone()
    };
    assert_eq!((total(&mut scene, &before).await, total(&mut scene, &after).await), (json!(360.0), json!(520.0)));
    // A longer stay costs its new nights, and keeps the price of the old ones.
    scene.send("PUT", "putReservation", &format!("reservationID={before}&checkoutDate=2026-12-28")).await;
    assert_eq!(total(&mut scene, &before).await, 480.0);
    let blocking =
        rate.replace("[0][rate]=200", "[rate]=1&rates[0][interval][blocked]=1").replace("[interval][0]", "[interval]");
    scene.send("PUT", "putReservation", &format!("reservationID={after}&status=canceled")).await;
    assert_eq!(scene.free().await, 1);
    assert_eq!(scene.send("POST", "patchRate", &blocking).await["success"], true);
    assert_eq!(scene.free().await, 0);
    let foreign = rate.replace("60001", "60011");
    assert_eq!(scene.send("POST", "putRate", &foreign).await["message"], "Invalid rateID");
}

#[tokio::test]
async fn a_guest_gets_a_room_arrives_and_leaves_in_that_order() {
    let mut scene = Scene::start().await;
    let (id, other) = (scene.book(1).await, scene.book(1).await);
    let mut act = async |operation: &str, form: &str| scene.send("POST", operation, form).await["success"] == true;
    assert!(!act("postRoomCheckIn", &format!("reservationID={id}")).await);
    assert!(!act("postRoomAssign", &format!("reservationID={id}&newRoomID=nowhere")).await);
    assert!(act("postRoomAssign", &format!("reservationID={id}&newRoomID=50001-0")).await);
    assert!(!act("postRoomAssign", &format!("reservationID={other}&newRoomID=50001-0")).await);
    assert!(!act("postRoomCheckOut", &format!("reservationID={id}")).await);
    assert!(act("postRoomCheckIn", &format!("reservationID={id}")).await);
    assert!(act("postRoomCheckOut", &format!("reservationID={id}")).await);
    let data = scene.get(&format!("getReservation?reservationID={id}")).await["data"].clone();
    assert_eq!((&data["status"], &data["assigned"][0]["roomID"]), (&json!("checked_out"), &json!("50001-0")));
}

#[tokio::test]
async fn a_house_account_can_be_paid_into_while_it_is_open() {
    let mut scene = Scene::start().await;
    let made = scene.send("POST", "postNewHouseAccount", "accountName=Pool&isPrivate=true").await;
    let id = made["data"]["houseAccountID"].as_str().unwrap().to_owned();
    let listed = scene.get("getHouseAccountList").await;
    let pool = listed["data"].as_array().unwrap().last().unwrap();
    assert_eq!((&pool["accountName"], &pool["isPrivate"]), (&json!("Pool"), &json!(true)));
    let pay = format!("houseAccountID={id}&type=credit&amount=10");
    assert_eq!(scene.send("POST", "postPayment", &pay).await["success"], true);
    scene.send("PUT", "putHouseAccountStatus", &format!("houseAccountID={id}&status=closed")).await;
    assert_eq!(scene.send("POST", "postPayment", &pay).await["message"], "The house account is closed");
    assert_eq!(scene.get("getHouseAccountList").await["data"].as_array().unwrap().len(), 2);
}
