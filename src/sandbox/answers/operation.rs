//! The operations, by the names and methods the vendor gives them.
//!
//! In: a method and the last part of a path. Out: an [`Operation`], or nothing, which is answered 404.

use http::Method;

/// What can be asked of the API.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::sandbox) enum Operation {
    Hotels,
    HotelDetails,
    Rooms,
    RoomTypes,
    AvailableRoomTypes,
    RatePlans,
    Rate,
    PutRate,
    PatchRate,
    RateJobs,
    Reservations,
    Reservation,
    PostReservation,
    PutReservation,
    RoomAssign,
    RoomCheckIn,
    RoomCheckOut,
    Guest,
    GuestList,
    PutGuest,
    Dashboard,
    Sources,
    PaymentMethods,
    PostPayment,
    VoidPayment,
    Items,
    Item,
    ItemCategories,
    PostItem,
    PostCustomItem,
    HouseAccounts,
    PostHouseAccount,
    PutHouseAccountStatus,
    Userinfo,
    PostFile,
    AppState,
    PostAppState,
    PostWebhook,
    DeleteWebhook,
    Webhooks,
}

impl Operation {
    pub(in crate::sandbox) fn find(method: &Method, name: &str) -> Option<Self> {
        let (operation, right) = match name {
            "getHotels" => (Self::Hotels, Method::GET),
            "getHotelDetails" => (Self::HotelDetails, Method::GET),
            "getRooms" => (Self::Rooms, Method::GET),
            "getRoomTypes" => (Self::RoomTypes, Method::GET),
            "getAvailableRoomTypes" => (Self::AvailableRoomTypes, Method::GET),
            "getRatePlans" => (Self::RatePlans, Method::GET),
            "getRate" => (Self::Rate, Method::GET),
            "putRate" => (Self::PutRate, Method::POST),
            "patchRate" => (Self::PatchRate, Method::POST),
            "getRateJobs" => (Self::RateJobs, Method::GET),
            "getReservations" => (Self::Reservations, Method::GET),
            "getReservation" => (Self::Reservation, Method::GET),
            "postReservation" => (Self::PostReservation, Method::POST),
            "putReservation" => (Self::PutReservation, Method::PUT),
            "postRoomAssign" => (Self::RoomAssign, Method::POST),
            "postRoomCheckIn" => (Self::RoomCheckIn, Method::POST),
            "postRoomCheckOut" => (Self::RoomCheckOut, Method::POST),
            "getGuest" => (Self::Guest, Method::GET),
            "getGuestList" => (Self::GuestList, Method::GET),
            "putGuest" => (Self::PutGuest, Method::PUT),
            "getDashboard" => (Self::Dashboard, Method::GET),
            "getSources" => (Self::Sources, Method::GET),
            "getPaymentMethods" => (Self::PaymentMethods, Method::GET),
            "postPayment" => (Self::PostPayment, Method::POST),
            "postVoidPayment" => (Self::VoidPayment, Method::POST),
            "getItems" => (Self::Items, Method::GET),
            "getItem" => (Self::Item, Method::GET),
            "getItemCategories" => (Self::ItemCategories, Method::GET),
            "postItem" => (Self::PostItem, Method::POST),
            "postCustomItem" => (Self::PostCustomItem, Method::POST),
            "getHouseAccountList" => (Self::HouseAccounts, Method::GET),
            "postNewHouseAccount" => (Self::PostHouseAccount, Method::POST),
            "putHouseAccountStatus" => (Self::PutHouseAccountStatus, Method::PUT),
            "userinfo" => (Self::Userinfo, Method::GET),
            "postFile" => (Self::PostFile, Method::POST),
            "getAppState" => (Self::AppState, Method::GET),
            "postAppState" => (Self::PostAppState, Method::POST),
            "postWebhook" => (Self::PostWebhook, Method::POST),
            "deleteWebhook" => (Self::DeleteWebhook, Method::DELETE),
            "getWebhooks" => (Self::Webhooks, Method::GET),
            _ => return None,
        };
        // HEAD is GET without the body, which hyper leaves out.
        let asked = if *method == Method::HEAD { &Method::GET } else { method };
        (*asked == right).then_some(operation)
    }
}
